//! Outlier detection: endpoints that do worse than the others, judged once in an interval.
//!
//! The algorithm is gRFC A50's, which is Envoy's with the share of ejections checked before each one: one endpoint may
//! be ejected however small `max_ejection_percent` is. A failure percentage at the threshold is an outlier, as in
//! Envoy. What neither has is a floor in endpoints: the last ones are never ejected.

use std::time::Duration;

use pillion_wire::resilience::{FailurePercentage, Outlier as Rules, SuccessRate};

/// An endpoint as it did in the interval that has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Requests that ended well.
    pub succeeded: u64,
    /// Requests that ended badly.
    pub failed: u64,
    /// It is ejected already.
    pub is_ejected: bool,
    /// It gets requests: neither ejected nor left alone for another reason.
    pub is_in_service: bool,
}

/// What is to be done with an endpoint, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It did as well as the others, or nothing can be said.
    Fine(&'static str),
    /// Nothing gets there for a while.
    Eject(String),
    /// It is an outlier, and stays all the same.
    Keep {
        /// What it did.
        why: String,
        /// Why it stays.
        but: &'static str,
    },
    /// It is ejected, and is not judged.
    Away,
}

/// Why endpoints are not judged, or were found well.
const TOO_FEW_REQUESTS: &str = "too few requests to tell";
const TOO_FEW_HOSTS: &str = "too few endpoints with enough requests to compare";
const WELL: &str = "no outlier";

/// Judges all endpoints of a destination, in order. `chance` gives numbers below 100.
pub fn judge(rules: &Rules, samples: &[Sample], mut chance: impl FnMut() -> u32) -> Vec<Verdict> {
    let mut ejected = samples.iter().filter(|sample| sample.is_ejected).count();
    let mut in_service = samples.iter().filter(|sample| sample.is_in_service).count();
    let mut verdicts: Vec<Verdict> = samples
        .iter()
        .map(|sample| if sample.is_ejected { Verdict::Away } else { Verdict::Fine(TOO_FEW_REQUESTS) })
        .collect();
    let mut apply = |outliers: Vec<Option<Verdict>>, enforcing: u32| {
        for ((verdict, outlier), sample) in verdicts.iter_mut().zip(outliers).zip(samples) {
            let (Verdict::Fine(_), Some(outlier)) = (&*verdict, outlier) else { continue };
            let Verdict::Eject(why) = outlier else {
                *verdict = outlier;
                continue;
            };
            let others = in_service - usize::from(sample.is_in_service);
            *verdict = if others < usize::try_from(rules.keep).unwrap_or(usize::MAX) {
                Verdict::Keep { why, but: "the floor of endpoints in use is reached" }
            } else if ejected * 100 >= samples.len() * usize::try_from(rules.max_percent).unwrap_or(100) {
                Verdict::Keep { why, but: "the largest share of endpoints is ejected already" }
            } else if chance() >= enforcing {
                Verdict::Keep { why, but: "chance spared it (enforcing)" }
            } else {
                ejected += 1;
                in_service = others;
                Verdict::Eject(why)
            };
        }
    };
    if let Some(rate) = &rules.success_rate {
        apply(by_success_rate(rate, samples), rate.enforcing);
    }
    if let Some(percentage) = &rules.failure_percentage {
        apply(by_failure_percentage(percentage, samples), percentage.enforcing);
    }
    verdicts
}

/// How long an endpoint stays away that was ejected `times` in a row. `chance` is from 0 to 1.
pub fn ejection_time(rules: &Rules, times: u32, chance: f64) -> Duration {
    let time = rules.base_ejection.saturating_mul(times.max(1)).min(rules.max_ejection.max(rules.base_ejection));
    time + rules.jitter.mul_f64(chance.clamp(0.0, 1.0))
}

/// gRFC A50, "Success Rate Algorithm".
fn by_success_rate(rules: &SuccessRate, samples: &[Sample]) -> Vec<Option<Verdict>> {
    let rates: Vec<Option<f64>> = samples
        .iter()
        .map(|sample| sample.volume(rules.volume).map(|total| sample.succeeded as f64 * 100.0 / total as f64))
        .collect();
    let known: Vec<f64> = rates.iter().flatten().copied().collect();
    if known.is_empty() || known.len() < usize::try_from(rules.hosts).unwrap_or(usize::MAX) {
        return rates.iter().map(|rate| rate.map(|_| Verdict::Fine(TOO_FEW_HOSTS))).collect();
    }
    let mean = known.iter().sum::<f64>() / known.len() as f64;
    let variance = known.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / known.len() as f64;
    let floor = mean - variance.sqrt() * f64::from(rules.stdev_factor) / 1000.0;
    let verdict = |rate: f64| {
        if rate < floor {
            Verdict::Eject(format!("its success rate of {rate:.1} % is below {floor:.1} % (mean {mean:.1} %)"))
        } else {
            Verdict::Fine(WELL)
        }
    };
    rates.into_iter().map(|rate| rate.map(verdict)).collect()
}

/// gRFC A50, "Failure Percentage Algorithm".
fn by_failure_percentage(rules: &FailurePercentage, samples: &[Sample]) -> Vec<Option<Verdict>> {
    let totals: Vec<Option<u64>> = samples.iter().map(|sample| sample.volume(rules.volume)).collect();
    let is_enough = totals.iter().flatten().count() >= usize::try_from(rules.hosts).unwrap_or(usize::MAX);
    let verdict = |(total, sample): (&Option<u64>, &Sample)| {
        let total = (*total)?;
        Some(if !is_enough {
            Verdict::Fine(TOO_FEW_HOSTS)
        } else if sample.failed * 100 >= total * u64::from(rules.threshold) {
            Verdict::Eject(format!("{} of {total} requests failed, {} % or more", sample.failed, rules.threshold))
        } else {
            Verdict::Fine(WELL)
        })
    };
    totals.iter().zip(samples).map(verdict).collect()
}

impl Sample {
    /// Its requests, if they are enough to be judged by, and it is not ejected.
    fn volume(&self, least: u32) -> Option<u64> {
        let total = self.succeeded + self.failed;
        (!self.is_ejected && total > 0 && total >= u64::from(least)).then_some(total)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(succeeded: u64, failed: u64) -> Sample {
        Sample { succeeded, failed, is_ejected: false, is_in_service: true }
    }

    fn percentage(threshold: u32) -> Rules {
        let share = FailurePercentage { threshold, hosts: 2, volume: 10, ..FailurePercentage::default() };
        Rules { failure_percentage: Some(share), max_percent: 100, ..Rules::default() }
    }

    fn ejected(verdicts: &[Verdict]) -> Vec<bool> {
        verdicts.iter().map(|verdict| matches!(verdict, Verdict::Eject(_))).collect()
    }

    #[test]
    fn the_one_that_succeeds_less_than_the_others_is_ejected() {
        let rules = Rules { success_rate: Some(SuccessRate::default()), ..Rules::default() };
        let mut samples = vec![sample(100, 0); 10];
        samples[3] = sample(60, 40);
        let verdicts = judge(&rules, &samples, || 0);
        let Verdict::Eject(why) = &verdicts[3] else { panic!("{verdicts:?}") };
        assert_eq!(why, "its success rate of 60.0 % is below 73.2 % (mean 96.0 %)");
        assert_eq!(ejected(&verdicts).iter().filter(|one| **one).count(), 1);
        samples[3] = sample(30, 20);
        assert_eq!(judge(&rules, &samples, || 0)[3], Verdict::Fine(TOO_FEW_REQUESTS));
        assert_eq!(judge(&rules, &samples[..4], || 0)[0], Verdict::Fine(TOO_FEW_HOSTS));
    }

    #[test]
    fn the_one_that_fails_too_often_is_ejected_at_its_threshold() {
        let samples = [sample(100, 0), sample(1, 9), sample(2, 8), sample(0, 9)];
        let verdicts = judge(&percentage(90), &samples, || 0);
        assert_eq!(ejected(&verdicts), [false, true, false, false], "{verdicts:?}");
    }

    #[test]
    fn the_share_the_floor_and_chance_keep_outliers_and_say_so() {
        let bad = [sample(0, 100), sample(0, 100), sample(0, 100)];
        assert_eq!(ejected(&judge(&percentage(50), &bad, || 0)), [true, true, false], "never the last");
        let rules = Rules { keep: 3, ..percentage(50) };
        let verdicts = judge(&rules, &bad, || 0);
        assert!(matches!(&verdicts[0], Verdict::Keep { but, .. } if but.contains("floor")), "{verdicts:?}");
        let rules = Rules { max_percent: 10, ..percentage(50) };
        assert_eq!(ejected(&judge(&rules, &bad, || 0)), [true, false, false], "one may always be");
        let share = FailurePercentage { enforcing: 30, hosts: 2, ..FailurePercentage::default() };
        let rules = Rules { failure_percentage: Some(share), ..percentage(50) };
        assert_eq!(ejected(&judge(&rules, &bad, || 30)), [false; 3]);
        assert_eq!(ejected(&judge(&rules, &bad, || 29)), [true, true, false]);
    }

    #[test]
    fn each_ejection_in_a_row_is_longer_up_to_the_cap() {
        let rules = Rules { jitter: Duration::from_secs(2), ..Rules::default() };
        let times: Vec<u64> = [1, 2, 3, 50].map(|times| ejection_time(&rules, times, 0.0).as_secs()).to_vec();
        assert_eq!(times, [30, 60, 90, 300]);
        assert_eq!(ejection_time(&rules, 1, 1.0).as_secs(), 32);
    }

    proptest! {
        #[test]
        fn the_floor_and_the_share_hold(
            hosts in prop::collection::vec((0u64..200, 0u64..200, any::<bool>(), any::<bool>()), 0..12),
            keep in 0u32..4, max_percent in 0u32..=100, chance in 0u32..100,
        ) {
            let samples: Vec<Sample> = hosts.iter().map(|(succeeded, failed, away, serves)| Sample {
                succeeded: *succeeded, failed: *failed, is_ejected: *away, is_in_service: !away && *serves,
            }).collect();
            let rules = Rules { keep, max_percent, success_rate: Some(SuccessRate { hosts: 2, volume: 1, ..SuccessRate::default() }), ..percentage(40) };
            let verdicts = judge(&rules, &samples, || chance);
            prop_assert_eq!(verdicts.len(), samples.len());
            let gone = verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Eject(_))).count();
            let serving = samples.iter().filter(|sample| sample.is_in_service).count();
            let lost = verdicts.iter().zip(&samples)
                .filter(|(verdict, sample)| matches!(verdict, Verdict::Eject(_)) && sample.is_in_service).count();
            prop_assert!(lost == 0 || serving - lost >= keep as usize);
            let before = samples.iter().filter(|sample| sample.is_ejected).count();
            prop_assert!(gone == 0 || (before + gone - 1) * 100 < samples.len() * max_percent as usize);
        }
    }
}
