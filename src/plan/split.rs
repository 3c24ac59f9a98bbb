//! A route whose requests several upstreams share: which one gets a request.

use std::sync::Arc;

use weir_config::Config;
use weir_proto_h1::Head;

use super::{CookiePlan, RetryPlan, RoutePlan, RouteTarget, Timeouts, UpstreamId};
use crate::ids::RequestId;
use crate::tls::{Mark, Marker};

/// Several upstreams that share the requests of a route.
#[derive(Clone, Debug)]
pub struct RouteSplit {
    /// In file order. At least one has a weight above 0.
    pub shares: Box<[SplitShare]>,
    /// The sum of all weights, above 0.
    total: u64,
    /// The cookie that keeps a client at its upstream; `None` if each request is drawn anew.
    pub cookie: Option<CookiePlan>,
    /// The request field that names the upstream, in lower case.
    pub force: Option<Box<str>>,
}

/// One upstream of a split route.
#[derive(Clone, Debug)]
pub struct SplitShare {
    /// The upstream's name.
    pub name: Arc<str>,
    /// The upstream.
    pub upstream: UpstreamId,
    /// Its share in proportion to the others'.
    pub weight: u32,
    /// Its value in the cookie.
    pub mark: Mark,
    /// The route as it would be with this upstream alone, so that the upstream's own settings apply.
    pub route: RoutePlan,
}

impl RouteSplit {
    /// Compiles the split of `route`, whose plan is `plan` but for the target.
    ///
    /// # Errors
    /// There is no such upstream, or no share.
    pub(super) fn compile(
        config: &Config,
        route: &weir_config::Route,
        split: &weir_config::Split,
        plan: &RoutePlan,
    ) -> Result<Self, String> {
        let marker = Marker::new(format!("weir split {}", route.name).as_bytes());
        let share = |&(index, weight): &(usize, u32)| {
            let upstream = config.upstreams.get(index).zip(u32::try_from(index).ok());
            let (upstream, id) =
                upstream.ok_or_else(|| format!("there is no upstream number {index}"))?;
            let alone = weir_config::Route {
                target: weir_config::Target::Upstream { index },
                ..route.clone()
            };
            Ok(SplitShare {
                name: upstream.name.as_str().into(),
                upstream: UpstreamId(id),
                weight,
                mark: marker.mark(&upstream.name),
                route: RoutePlan {
                    target: RouteTarget::Upstream(UpstreamId(id)),
                    host: config.host_of(&alone).map(Into::into),
                    timeouts: Timeouts::new(config.timeouts_of(&alone), config.limits_of(&alone)),
                    retry: RetryPlan::new(config.retries_of(&alone)),
                    ..plan.clone()
                },
            })
        };
        let shares: Box<[SplitShare]> = split
            .shares
            .iter()
            .map(share)
            .collect::<Result<_, String>>()?;
        let total = shares.iter().map(|share| u64::from(share.weight)).sum();
        if total == 0 {
            return Err("no upstream has a share".to_owned());
        }
        let name = || CookiePlan::name("weir-split-", &marker);
        let cookie = split.is_sticky.then(|| CookiePlan::of_session(name()));
        Ok(Self {
            shares,
            total,
            cookie,
            force: split.force.as_deref().map(Into::into),
        })
    }

    /// The upstream that the request itself asks for: by the field of `force`, else by the cookie. An upstream whose
    /// share is 0 keeps no client.
    #[must_use]
    pub fn asked_for(&self, head: &Head, block: &[u8]) -> Option<&SplitShare> {
        self.forced(head, block)
            .or_else(|| self.remembered(head, block))
    }

    fn forced(&self, head: &Head, block: &[u8]) -> Option<&SplitShare> {
        let field = head.find_name(self.force.as_ref()?.as_bytes(), block)?;
        let value = field.value.get(block);
        let mut shares = self.shares.iter().filter(|_| !field.is_refused);
        shares.find(|share| share.name.as_bytes() == value)
    }

    fn remembered(&self, head: &Head, block: &[u8]) -> Option<&SplitShare> {
        let mut values = head.cookies(self.cookie.as_ref()?.name.as_bytes(), block);
        values.find_map(|value| {
            let mut shares = self.shares.iter().filter(|share| share.weight > 0);
            shares.find(|share| share.mark == value)
        })
    }

    /// Draws an upstream for a request that asks for none. One id always draws the same.
    #[must_use]
    pub fn draw(&self, id: RequestId) -> Option<&SplitShare> {
        let drawn = u128::from(id.draw(0)) * u128::from(self.total);
        let mut left = (drawn >> 64) as u64;
        self.shares.iter().find(|share| {
            let weight = u64::from(share.weight);
            let is_here = left < weight;
            left = left.saturating_sub(weight);
            is_here
        })
    }

    /// The part of all requests that an upstream gets, in percent, without trailing zeros.
    #[must_use]
    pub fn show_share(&self, share: &SplitShare) -> String {
        let hundredths = u64::from(share.weight) * 10_000 / self.total.max(1);
        match (hundredths / 100, hundredths % 100) {
            (whole, 0) => format!("{whole} %"),
            (whole, part) if part % 10 == 0 => format!("{whole}.{} %", part / 10),
            (whole, part) => format!("{whole}.{part:02} %"),
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_proto_h1::{Limits, parse_request};

    use super::*;
    use crate::plan::Plan;

    fn split(to: &str, settings: &str) -> RouteSplit {
        let text = format!(
            "[listen.\"127.0.0.1:8080\"]\n[upstream]\napp = [\"127.0.0.1:1\"]\ncanary = [\"127.0.0.1:2\"]\n\
             [[route]]\nmatch = \"/*\"\nto = {{ {to} }}\n{settings}\n"
        );
        let (config, _) = weir_config::parse("weir.toml", &text).expect("a valid file");
        let plan = Plan::compile(&config).expect("a plan");
        match &plan.routes[0].target {
            RouteTarget::Split(split) => (**split).clone(),
            other => panic!("no split: {other:?}"),
        }
    }

    fn asked_for(split: &RouteSplit, fields: &str) -> Option<String> {
        let block = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes();
        let mut head = Head::new();
        parse_request(&block, &Limits::default(), &mut head).expect("a valid request");
        let share = split.asked_for(&head, &block)?;
        Some(share.name.to_string())
    }

    #[test]
    fn shares_hold_within_two_points() {
        for (to, expected) in [
            ("app = 95, canary = 5", 0.05),
            ("app = 1, canary = 1", 0.5),
            ("app = 0, canary = 7", 1.0),
            ("app = 65535, canary = 0", 0.0),
        ] {
            let split = split(to, "");
            let draws = 10_000;
            let canary = (0..draws).filter(|n| {
                let share = split.draw(RequestId(0x5eed, *n)).expect("a share");
                &*share.name == "canary"
            });
            let got = canary.count() as f64 / draws as f64;
            assert!((got - expected).abs() < 0.02, "{to}: {got}");
        }
    }

    #[test]
    fn a_field_goes_before_the_cookie_and_the_cookie_before_the_draw() {
        let split = split(
            "app = 95, canary = 0",
            "split = { sticky = \"cookie\", force = \"X-Upstream\" }",
        );
        let cookie = &*split.cookie.as_ref().expect("a cookie").name;
        let mark = |at: usize| String::from_utf8_lossy(&split.shares[at].mark).into_owned();
        let app = format!("Cookie: a=b; {cookie}={}\r\n", mark(0));
        let canary = format!("Cookie: {cookie}={}\r\n", mark(1));
        for (fields, expected) in [
            ("", None),
            ("x-upstream: canary\r\n", Some("canary")),
            ("X-Upstream: app\r\n", Some("app")),
            ("X-Upstream: other\r\n", None),
            (&app, Some("app")),
            // Its share is 0 now, so its clients are drawn anew.
            (&canary, None),
            (&format!("{app}X-Upstream: canary\r\n"), Some("canary")),
            (&format!("{app}X-Upstream: other\r\n"), Some("app")),
        ] {
            assert_eq!(asked_for(&split, fields).as_deref(), expected, "{fields}");
        }
    }

    #[test]
    fn the_settings_of_each_upstream_apply() {
        let text = "[listen.\"127.0.0.1:8080\"]\n[upstream]\napp = [\"127.0.0.1:1\"]\n[upstream.canary]\nservers = [\"127.0.0.1:2\"]\nhost = \"c.example.com\"\ntimeouts = { first_byte = \"7s\" }\nretries = 0\n[[route]]\nmatch = \"/*\"\nto = { app = 1, canary = 1 }\n";
        let (config, _) = weir_config::parse("weir.toml", text).expect("a valid file");
        let plan = Plan::compile(&config).expect("a plan");
        let RouteTarget::Split(split) = &plan.routes[0].target else {
            panic!("no split")
        };
        let [app, canary] = &split.shares[..] else {
            panic!("two shares")
        };
        assert_eq!(app.route.host, None);
        assert_eq!(canary.route.host.as_deref(), Some("c.example.com"));
        assert_eq!(canary.route.timeouts.first_byte.as_secs(), 7);
        assert_eq!(canary.route.retry.retries_max, 0);
        assert_eq!(app.route.retry.retries_max, 1);
    }

    #[test]
    fn shares_are_shown_in_percent() {
        for (to, expected) in [
            ("canary = 5, app = 95", "5 %"),
            ("canary = 2, app = 1", "66.66 %"),
            ("canary = 3, app = 997", "0.3 %"),
        ] {
            let split = split(to, "");
            assert_eq!(split.show_share(&split.shares[0]), expected);
        }
    }
}
