//! `AdaptiveConcurrency`: the limit on requests in flight that a port finds for itself.

use std::time::Duration;

use pillion_wire::load_shedding::{Gradient, MinRtt, Percent};
use pillion_wire::xds::adaptive_concurrency::AdaptiveConcurrency;
use pillion_wire::xds::adaptive_concurrency::adaptive_concurrency::ConcurrencyControllerConfig;
use pillion_wire::xds::adaptive_concurrency::gradient_controller_config::{
    ConcurrencyLimitCalculationParams, MinimumRttCalculationParams,
};
use pillion_wire::xds::{UInt32Value, envoy_type};

use super::at::{At, Reason, Refusal, duration, refuse};

/// Measured latencies that are remembered, at most.
const MOST_SAMPLES: u32 = 4096;

/// `None`: the filter is there and switched off.
pub(super) fn gradient(at: &At<'_>, filter: AdaptiveConcurrency) -> Result<Option<Gradient>, Refusal> {
    let off = filter.enabled.is_some_and(|flag| flag.default_value.is_some_and(|value| !value.value));
    refuse!(at, filter; concurrency_limit_exceeded_status);
    let at = &at.field("gradient_controller_config");
    let Some(ConcurrencyControllerConfig::GradientControllerConfig(config)) = filter.concurrency_controller_config
    else {
        return Err(at.refuse(Reason::Missing));
    };
    let base = Gradient::default();
    let limits = &at.field("concurrency_limit_params");
    let (most, least, update_interval) = limit_params(limits, limits.required(config.concurrency_limit_params)?)?;
    let rtt = &at.field("min_rtt_calc_params");
    let gradient = Gradient {
        percentile: percent(
            &at.field("sample_aggregate_percentile"),
            config.sample_aggregate_percentile,
            base.percentile,
        )?,
        update_interval,
        most,
        least,
        min_rtt: min_rtt(rtt, rtt.required(config.min_rtt_calc_params)?)?,
    };
    if gradient.floor() > gradient.most {
        return Err(limits.field("max_concurrency_limit").invalid("is below the limit at least"));
    }
    Ok((!off).then_some(gradient))
}

fn limit_params(
    at: &At<'_>,
    params: ConcurrencyLimitCalculationParams,
) -> Result<(u32, Option<u32>, Duration), Refusal> {
    let most = positive(&at.field("max_concurrency_limit"), params.max_concurrency_limit)?;
    let least = positive(&at.field("min_concurrency_limit"), params.min_concurrency_limit)?;
    let at = &at.field("concurrency_update_interval");
    let interval = duration(at, at.required(params.concurrency_update_interval)?)?;
    if interval.is_zero() {
        return Err(at.invalid("has to be longer than 0"));
    }
    Ok((most.unwrap_or_else(|| Gradient::default().most), least, interval))
}

fn min_rtt(at: &At<'_>, params: MinimumRttCalculationParams) -> Result<MinRtt, Refusal> {
    let base = MinRtt::default();
    let fixed = params.fixed_value.map(|fixed| duration(&at.field("fixed_value"), fixed)).transpose()?;
    let interval = params.interval.map(|interval| duration(&at.field("interval"), interval)).transpose()?;
    match (interval, fixed) {
        (None, None) => return Err(at.field("interval").refuse(Reason::Missing)),
        (Some(interval), _) if interval < Duration::from_millis(1) => {
            return Err(at.field("interval").invalid("is shorter than a millisecond"));
        }
        (_, Some(fixed)) if fixed.is_zero() => {
            return Err(at.field("fixed_value").invalid("has to be longer than 0"));
        }
        _ => {}
    }
    let count = &at.field("request_count");
    let requests = positive(count, params.request_count)?.unwrap_or(base.requests);
    if requests > MOST_SAMPLES {
        return Err(count.invalid("is more than is remembered, 4096"));
    }
    let concurrency = positive(&at.field("min_concurrency"), params.min_concurrency)?;
    Ok(MinRtt {
        // Envoy measures where there is an interval.
        fixed: fixed.filter(|_| interval.is_none()),
        interval: interval.unwrap_or(base.interval),
        requests,
        jitter: percent(&at.field("jitter"), params.jitter, base.jitter)?,
        concurrency: concurrency.unwrap_or(base.concurrency),
        buffer: percent(&at.field("buffer"), params.buffer, base.buffer)?,
    })
}

fn positive(at: &At<'_>, number: Option<UInt32Value>) -> Result<Option<u32>, Refusal> {
    match number {
        Some(UInt32Value { value: 0 }) => Err(at.invalid("has to be more than 0")),
        number => Ok(number.map(|number| number.value)),
    }
}

fn percent(at: &At<'_>, percent: Option<envoy_type::Percent>, default: Percent) -> Result<Percent, Refusal> {
    let Some(percent) = percent else { return Ok(default) };
    Percent::from_double(percent.value).ok_or_else(|| at.invalid("is no percentage from 0 to 100"))
}

#[cfg(test)]
mod tests {
    use pillion_wire::xds::adaptive_concurrency::GradientControllerConfig;
    use pillion_wire::xds::core::RuntimeFeatureFlag;
    use pillion_wire::xds::{self, BoolValue};

    use super::*;

    fn told(change: impl FnOnce(&mut GradientControllerConfig)) -> Result<Option<Gradient>, String> {
        let seconds = |seconds| Some(xds::Duration { seconds, nanos: 0 });
        let limits = ConcurrencyLimitCalculationParams {
            concurrency_update_interval: seconds(1),
            ..ConcurrencyLimitCalculationParams::default()
        };
        let rtt = MinimumRttCalculationParams { interval: seconds(9), ..MinimumRttCalculationParams::default() };
        let mut config = GradientControllerConfig {
            concurrency_limit_params: Some(limits),
            min_rtt_calc_params: Some(rtt),
            ..GradientControllerConfig::default()
        };
        change(&mut config);
        let controller = Some(ConcurrencyControllerConfig::GradientControllerConfig(config));
        let filter = AdaptiveConcurrency { concurrency_controller_config: controller, ..Default::default() };
        gradient(&At::ROOT, filter).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn what_is_left_out_is_as_in_envoy() {
        let wanted = Gradient {
            update_interval: Duration::from_secs(1),
            min_rtt: MinRtt { interval: Duration::from_secs(9), ..MinRtt::default() },
            ..Gradient::default()
        };
        assert_eq!(told(|_| ()), Ok(Some(wanted)));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_path() {
        type Change = fn(&mut GradientControllerConfig);
        let cases: [(Change, &str); 6] = [
            (|config| config.concurrency_limit_params = None, "concurrency_limit_params: is missing"),
            (|config| config.min_rtt_calc_params = None, "min_rtt_calc_params: is missing"),
            (
                |config| config.min_rtt_calc_params.as_mut().expect("set").interval = None,
                "min_rtt_calc_params.interval: is missing",
            ),
            (
                |config| {
                    config.min_rtt_calc_params.as_mut().expect("set").request_count = Some(UInt32Value { value: 0 })
                },
                "min_rtt_calc_params.request_count: has to be more than 0",
            ),
            (
                |config| config.sample_aggregate_percentile = Some(envoy_type::Percent { value: f64::NAN }),
                "sample_aggregate_percentile: is no percentage from 0 to 100",
            ),
            (
                |config| {
                    let limits = config.concurrency_limit_params.as_mut().expect("set");
                    limits.max_concurrency_limit = Some(UInt32Value { value: 2 });
                },
                "concurrency_limit_params.max_concurrency_limit: is below the limit at least",
            ),
        ];
        for (change, wanted) in cases {
            assert_eq!(told(change), Err(format!("gradient_controller_config.{wanted}")));
        }
        let missing = gradient(&At::ROOT, AdaptiveConcurrency::default()).map_err(|refusal| refusal.to_string());
        assert_eq!(missing, Err("gradient_controller_config: is missing".to_owned()));
    }

    #[test]
    fn it_may_be_switched_off() {
        let enabled = RuntimeFeatureFlag { default_value: Some(BoolValue { value: false }), ..Default::default() };
        let rtt = MinimumRttCalculationParams {
            fixed_value: Some(xds::Duration { seconds: 1, nanos: 0 }),
            ..MinimumRttCalculationParams::default()
        };
        let limits = ConcurrencyLimitCalculationParams {
            concurrency_update_interval: Some(xds::Duration { seconds: 1, nanos: 0 }),
            ..ConcurrencyLimitCalculationParams::default()
        };
        let config = GradientControllerConfig {
            concurrency_limit_params: Some(limits),
            min_rtt_calc_params: Some(rtt),
            ..GradientControllerConfig::default()
        };
        let controller = Some(ConcurrencyControllerConfig::GradientControllerConfig(config));
        let mut filter = AdaptiveConcurrency { concurrency_controller_config: controller, ..Default::default() };
        let read = gradient(&At::ROOT, filter.clone()).expect("accepted").expect("on");
        assert_eq!(read.min_rtt.fixed, Some(Duration::from_secs(1)));
        filter.enabled = Some(enabled);
        assert_eq!(gradient(&At::ROOT, filter), Ok(None));
    }
}
