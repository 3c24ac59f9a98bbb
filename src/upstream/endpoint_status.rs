//! The status that control posts for an endpoint, packed so that cores read it with one load.

/// The health of one endpoint, as control has decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointStatus {
    /// The verdict of active checks.
    pub health: EndpointHealth,
    /// Failed requests have taken the endpoint out of use for a time.
    pub is_ejected: bool,
    /// The endpoint comes back from an ejection: few requests try it.
    pub is_on_trial: bool,
}

/// The verdict of active checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EndpointHealth {
    /// No check has decided yet, or there are none. Without checks the endpoint counts as healthy; with checks it gets
    /// nothing.
    #[default]
    Unknown,
    /// The endpoint passes its checks.
    Up,
    /// The endpoint fails its checks.
    Down,
}

/// The bits of a packed status. The bits above them count how often control has written it.
const HEALTH: u32 = 0b0011;
const EJECTED: u32 = 0b0100;
const ON_TRIAL: u32 = 0b1000;
const WRITTEN: u32 = 0b1_0000;

impl EndpointStatus {
    /// Whether the endpoint may get requests while others are healthy too.
    #[must_use]
    pub fn is_healthy(self) -> bool {
        self.health != EndpointHealth::Down && !self.is_ejected
    }

    /// Packs the status. The result differs from `old`, the word that it replaces, even if the status is the same.
    pub(super) fn pack(self, old: u32) -> u32 {
        let health = match self.health {
            EndpointHealth::Unknown => 0,
            EndpointHealth::Up => 1,
            EndpointHealth::Down => 2,
        };
        let bit = |is_set: bool, bit: u32| if is_set { bit } else { 0 };
        let written = (old & !(WRITTEN - 1)).wrapping_add(WRITTEN);
        written | health | bit(self.is_ejected, EJECTED) | bit(self.is_on_trial, ON_TRIAL)
    }

    /// Unpacks a status.
    #[inline]
    pub(super) fn unpack(word: u32) -> Self {
        Self {
            health: match word & HEALTH {
                0 => EndpointHealth::Unknown,
                1 => EndpointHealth::Up,
                _ => EndpointHealth::Down,
            },
            is_ejected: word & EJECTED != 0,
            is_on_trial: word & ON_TRIAL != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_survives_packing_and_every_write_changes_the_word() {
        let mut word = u32::MAX;
        for health in [
            EndpointHealth::Unknown,
            EndpointHealth::Up,
            EndpointHealth::Down,
        ] {
            for bits in 0..4 {
                let status = EndpointStatus {
                    health,
                    is_ejected: bits & 1 != 0,
                    is_on_trial: bits & 2 != 0,
                };
                let first = status.pack(word);
                let second = status.pack(first);
                assert!(word != first && first != second);
                assert_eq!(EndpointStatus::unpack(second), status);
                word = second;
            }
        }
        assert_eq!(EndpointStatus::unpack(0), EndpointStatus::default());
    }
}
