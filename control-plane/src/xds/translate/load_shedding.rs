//! The limit on requests in flight that a workload's port finds for itself, as Envoy's filter.

use pillion_wire::{
    load_shedding::{LoadShedding, MinRtt, Percent},
    xds::{
        UInt32Value,
        adaptive_concurrency::{
            AdaptiveConcurrency, GradientControllerConfig,
            adaptive_concurrency::ConcurrencyControllerConfig,
            gradient_controller_config::{ConcurrencyLimitCalculationParams, MinimumRttCalculationParams},
        },
        envoy_type,
        hcm::HttpFilter,
        pack, type_url,
    },
};

use super::{duration, http_filters};

const NAME: &str = "envoy.filters.http.adaptive_concurrency";

/// All of it but who is refused first, which Envoy does not tell apart.
pub(super) fn filter(shedding: &LoadShedding) -> HttpFilter {
    let gradient = &shedding.gradient;
    let config = GradientControllerConfig {
        sample_aggregate_percentile: Some(percent(gradient.percentile)),
        concurrency_limit_params: Some(ConcurrencyLimitCalculationParams {
            max_concurrency_limit: Some(number(gradient.most)),
            concurrency_update_interval: Some(duration(gradient.update_interval)),
            // Younger than the others: said only where it differs.
            min_concurrency_limit: gradient.least.map(number),
        }),
        min_rtt_calc_params: Some(min_rtt(&gradient.min_rtt)),
    };
    let controller = Some(ConcurrencyControllerConfig::GradientControllerConfig(config));
    let message = AdaptiveConcurrency { concurrency_controller_config: controller, ..AdaptiveConcurrency::default() };
    http_filters::filter(NAME, pack(type_url::ADAPTIVE_CONCURRENCY, &message))
}

fn min_rtt(params: &MinRtt) -> MinimumRttCalculationParams {
    MinimumRttCalculationParams {
        // Without an interval it is the fixed value that counts.
        interval: params.fixed.is_none().then(|| duration(params.interval)),
        fixed_value: params.fixed.map(duration),
        request_count: Some(number(params.requests)),
        jitter: Some(percent(params.jitter)),
        min_concurrency: Some(number(params.concurrency)),
        buffer: Some(percent(params.buffer)),
    }
}

fn number(value: u32) -> UInt32Value {
    UInt32Value { value }
}

fn percent(percent: Percent) -> envoy_type::Percent {
    envoy_type::Percent { value: percent.to_double() }
}
