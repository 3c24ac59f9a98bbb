//! Finds endpoints whose share of good answers is low, from counts of the last ten seconds.

use weir_config::SuccessRate;

/// Endpoints with fewer answers are not judged (Envoy `success_rate_request_volume`).
const ANSWERS_MIN: u64 = 100;

/// With fewer endpoints, no one is an outlier (Envoy `success_rate_minimum_hosts`).
const ENDPOINTS_MIN: usize = 5;

/// How many standard deviations below the mean an outlier is (Envoy `success_rate_stdev_factor` 1900).
const DEVIATIONS: f64 = 1.9;

/// The answers of an endpoint within a time, by their outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) good: u64,
    pub(super) bad: u64,
}

impl Tally {
    fn rate(self) -> Option<f64> {
        let all = self.good + self.bad;
        (all >= ANSWERS_MIN).then(|| self.good as f64 / all as f64)
    }
}

/// The numbers of the endpoints whose rates are too low.
pub(super) fn find_failing(tallies: &[Tally], rule: SuccessRate) -> Vec<usize> {
    let rates: Vec<_> = tallies.iter().map(|tally| tally.rate()).collect();
    let judged: Vec<f64> = rates.iter().copied().flatten().collect();
    let threshold = match rule {
        SuccessRate::Below(percent) => f64::from(percent) / 100.0,
        SuccessRate::Outlier if judged.len() < ENDPOINTS_MIN => return Vec::new(),
        SuccessRate::Outlier => {
            let count = judged.len() as f64;
            let mean = judged.iter().sum::<f64>() / count;
            let squares = judged.iter().map(|rate| (rate - mean).powi(2));
            mean - DEVIATIONS * (squares.sum::<f64>() / count).sqrt()
        }
    };
    let below = |(at, rate): (usize, &Option<f64>)| rate.filter(|r| *r < threshold).map(|_| at);
    rates.iter().enumerate().filter_map(below).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tallies(all: &[(u64, u64)]) -> Vec<Tally> {
        let tally = |&(good, bad): &(u64, u64)| Tally { good, bad };
        all.iter().map(tally).collect()
    }

    #[test]
    fn outliers_are_found_among_enough_endpoints() {
        let mut all = vec![(990, 10); 9];
        all.push((700, 300));
        assert_eq!(find_failing(&tallies(&all), SuccessRate::Outlier), [9]);
        assert!(find_failing(&tallies(&all[6..]), SuccessRate::Outlier).is_empty());
        // All alike, good or bad.
        for each in [(100, 0), (50, 50), (0, 100)] {
            assert!(find_failing(&tallies(&[each; 6]), SuccessRate::Outlier).is_empty());
        }
    }

    #[test]
    fn few_answers_are_no_evidence() {
        let all = tallies(&[(0, 99), (0, 100), (95, 5), (89, 11), (0, 0)]);
        assert_eq!(find_failing(&all, SuccessRate::Below(90)), [1, 3]);
    }
}
