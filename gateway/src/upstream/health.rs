//! Health as a state machine: results of checks in, changes out. Pure.

/// What is known of an endpoint's health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// No check has decided yet, or none is configured. Takes traffic: a gateway that starts while the
    /// checks are still under way must not refuse everything.
    #[default]
    Unknown = 0,
    /// Takes traffic.
    Healthy = 1,
    /// Takes none, unless every endpoint of its colour is unhealthy.
    Unhealthy = 2,
}

/// How many results in a row it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Thresholds {
    /// Successes, for an unhealthy endpoint to be healthy again; at least 1.
    pub(super) healthy_after: u8,
    /// Failures, for an endpoint to be unhealthy; at least 1.
    pub(super) unhealthy_after: u8,
}

/// A change of health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transition {
    pub(super) from: Health,
    pub(super) to: Health,
}

/// Health and the results that count towards the next change of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Machine {
    health: Health,
    /// Equal results in a row that speak against the present health.
    against: u8,
}

// === impl Machine ===

impl Machine {
    /// Takes one result. Thresholds may differ from one call to the next.
    ///
    /// One success is enough to know an unknown endpoint as healthy, since it takes traffic anyway; to
    /// be unhealthy it needs as many failures as any other.
    pub(super) fn step(&mut self, success: bool, thresholds: Thresholds) -> Option<Transition> {
        let (to, needed) = match (self.health, success) {
            (Health::Healthy, true) | (Health::Unhealthy, false) => {
                self.against = 0;
                return None;
            }
            (Health::Unknown, true) => (Health::Healthy, 1),
            (Health::Unhealthy, true) => (Health::Healthy, thresholds.healthy_after),
            (Health::Unknown | Health::Healthy, false) => {
                (Health::Unhealthy, thresholds.unhealthy_after)
            }
        };
        self.against = self.against.saturating_add(1);
        if self.against < needed {
            return None;
        }
        let from = std::mem::replace(&mut self.health, to);
        self.against = 0;
        Some(Transition { from, to })
    }
}

// === impl Health ===

impl Health {
    /// The inverse of `as u8`.
    pub(super) fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Healthy,
            2 => Self::Unhealthy,
            _ => Self::Unknown,
        }
    }

    /// As logs and views write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn thresholds(healthy_after: u8, unhealthy_after: u8) -> Thresholds {
        Thresholds {
            healthy_after,
            unhealthy_after,
        }
    }

    /// Feeds results (`+` and `-`) and writes down the health after each one.
    fn story(results: &str, thresholds: Thresholds) -> String {
        let mut machine = Machine::default();
        results
            .chars()
            .map(|result| {
                machine.step(result == '+', thresholds);
                match machine.health {
                    Health::Unknown => '?',
                    Health::Healthy => 'h',
                    Health::Unhealthy => 'u',
                }
            })
            .collect()
    }

    #[test]
    fn it_takes_the_configured_number_of_results_in_a_row() {
        let two_three = thresholds(2, 3);
        assert_eq!(story("+---++", two_three), "hhhuuh");
        assert_eq!(story("+--+--+---", two_three), "hhhhhhhhhu");
        assert_eq!(story("+---+-+-++", two_three), "hhhuuuuuuh");
    }

    #[test]
    fn an_unknown_endpoint_needs_one_success_or_all_failures() {
        assert_eq!(story("+", thresholds(5, 3)), "h");
        assert_eq!(story("---", thresholds(5, 3)), "??u");
    }

    #[test]
    fn one_result_is_enough_where_one_is_asked_for() {
        assert_eq!(story("-+-+", thresholds(1, 1)), "uhuh");
    }

    proptest! {
        /// Against a reading of the rule that looks back over all results.
        #[test]
        fn it_changes_exactly_after_an_unbroken_run(
            results in prop::collection::vec(any::<bool>(), 0..200),
            healthy_after in 1_u8..6,
            unhealthy_after in 1_u8..6,
        ) {
            let thresholds = thresholds(healthy_after, unhealthy_after);
            let mut machine = Machine::default();
            let mut health = Health::Unknown;
            for (i, success) in results.iter().enumerate() {
                let run = results[..=i].iter().rev().take_while(|r| *r == success).count();
                let next = match (health, success) {
                    (Health::Unknown, true) => Health::Healthy,
                    (Health::Unhealthy, true) if run >= usize::from(healthy_after) => Health::Healthy,
                    (Health::Unknown | Health::Healthy, false) if run >= usize::from(unhealthy_after) => {
                        Health::Unhealthy
                    }
                    (same, _) => same,
                };
                let expected = (next != health).then_some(Transition { from: health, to: next });
                prop_assert_eq!(machine.step(*success, thresholds), expected);
                health = next;
            }
        }
    }
}
