//! `mirror`: copies of requests for another upstream, whose answers Weir drops.
//!
//! The step only decides which requests are copied. The exchange makes the copy (`exchange::mirror`), because the copy
//! has the head and body that the endpoint gets.

use std::fmt::Write as _;
use std::time::Duration;

use weir_config::{Config, show_duration, show_size};

use super::{Facts, StepRequest, Verdict};
use crate::ids::{RequestId, UpstreamId};

/// The field that marks a copy.
pub const MIRROR_FIELD: &str = "X-Weir-Mirror";

/// Sets these draws apart from those of split routes, which the same id decides.
const SALT: u64 = 0x6d69_7272_6f72;

/// The copies that a route sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The upstream that gets them.
    pub upstream: UpstreamId,
    /// Its name.
    name: Box<str>,
    share_percent: u32,
    /// The largest body that is copied, in bytes. `None`: copies have no body.
    pub body_bytes_max: Option<usize>,
    /// How long a copy may take, with its answer.
    pub timeout: Duration,
    /// The Host that copies get; `None` for the one that the client asked for.
    pub host: Option<Box<str>>,
}

impl Mirror {
    /// Compiles the mirror of a route.
    ///
    /// # Errors
    /// There is no such upstream.
    pub(super) fn compile(
        config: &Config,
        route: &weir_config::Route,
        mirror: &weir_config::Mirror,
    ) -> Result<Self, String> {
        let index = mirror.upstream;
        let found = config.upstreams.get(index).zip(u32::try_from(index).ok());
        let (upstream, id) = found.ok_or_else(|| format!("there is no upstream number {index}"))?;
        let alone = weir_config::Route {
            target: weir_config::Target::Upstream { index },
            ..route.clone()
        };
        Ok(Self {
            upstream: UpstreamId(id),
            name: upstream.name.as_str().into(),
            share_percent: mirror.share_percent,
            body_bytes_max: mirror
                .body_bytes_max
                .map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
            timeout: mirror.timeout,
            host: config.host_of(&alone).map(Into::into),
        })
    }

    /// Notes whether the request is copied. An upgrade never is: a copy has no client to talk to.
    pub(super) fn run(&self, request: &StepRequest<'_>, facts: &mut Facts) {
        facts.is_mirrored = request.hop.upgrade.is_none() && self.draws(request.id);
    }

    /// Whether the request with this id is copied.
    fn draws(&self, id: RequestId) -> bool {
        let drawn = u128::from(id.draw(SALT)) * 100;
        (drawn >> 64) < u128::from(self.share_percent)
    }

    /// Explains which copies the route sends.
    pub(super) fn explain(&self, request: &StepRequest<'_>) -> Verdict {
        if request.hop.upgrade.is_some() {
            return Verdict::Does("nothing: upgrades are not copied".to_owned());
        }
        let mut text = "send ".to_owned();
        if self.share_percent < 100 {
            let _ = write!(text, "{}% of the requests ", self.share_percent);
        }
        let _ = write!(text, "to upstream {} too, ", self.name);
        let _ = match self.body_bytes_max {
            Some(max) => write!(text, "with bodies of up to {}", show_size(max as u64)),
            None => write!(text, "without bodies"),
        };
        let _ = write!(
            text,
            "; drop the answers, after at most {}",
            show_duration(self.timeout)
        );
        Verdict::Does(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(share_percent: u32) -> Mirror {
        Mirror {
            upstream: UpstreamId(1),
            name: "shadow".into(),
            share_percent,
            body_bytes_max: Some(1),
            timeout: Duration::from_secs(1),
            host: None,
        }
    }

    #[test]
    fn shares_hold_within_one_point() {
        for share in [0, 5, 50, 100] {
            let mirror = mirror(share);
            let copied = (0..100_000).filter(|n| mirror.draws(RequestId(7, *n)));
            let percent = copied.count() as f64 / 1_000.0;
            assert!(
                (percent - f64::from(share)).abs() < 1.0,
                "{share}: {percent}"
            );
        }
    }
}
