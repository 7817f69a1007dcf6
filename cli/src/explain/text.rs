//! The answer for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::answer::{Answer, Backend, Server};
use super::quote::Quote;

/// One fact a line, each with its place.
pub(super) fn render(answer: &Answer) -> String {
    let mut text = String::new();
    let mut line = |words: std::fmt::Arguments<'_>| {
        // A string takes everything.
        let _always_fits = writeln!(text, "{words}");
    };
    line(format_args!("{} calls {}", answer.from, answer.destination));
    if let Some(service) = &answer.service {
        line(format_args!("  service   {}", service.place()));
    }
    match &answer.route {
        Some(route) => {
            let place = route.origin.as_ref().map(Quote::place).unwrap_or_default();
            line(format_args!("  route     {} by {place}", route.name));
        }
        None => line(format_args!("  route     none")),
    }
    for other in &answer.others {
        let why = other.mismatch.as_deref().unwrap_or("it matches too, but comes later");
        let at = other.line.as_deref().map_or_else(String::new, |line| format!(" ({line})"));
        line(format_args!("    not     {}{at}: {why}", other.name));
    }
    for filter in &answer.filters {
        line(format_args!("  filter    {filter}"));
    }
    policies(&mut line, "  policy    ", &answer.policies);
    for backend in &answer.backends {
        describe(&mut line, backend);
    }
    for server in &answer.servers {
        serve(&mut line, server);
    }
    line(format_args!("  outcome   {}: {}", answer.reason, answer.verdict));
    for refused in &answer.refused {
        line(format_args!("  refused   {refused}"));
    }
    text
}

fn policies(line: &mut impl FnMut(std::fmt::Arguments<'_>), indent: &str, sections: &BTreeMap<String, Quote>) {
    for quote in sections.values() {
        line(format_args!("{indent}{}: {}", quote.place(), quote.text));
    }
}

fn describe(line: &mut impl FnMut(std::fmt::Arguments<'_>), backend: &Backend) {
    let share = if backend.per_cent > 0.0 { format!("{:.0} %", backend.per_cent) } else { "fallback".to_owned() };
    line(format_args!("  backend   {} {share}", backend.cluster));
    for endpoint in &backend.endpoints {
        let who = endpoint.identity.as_deref().unwrap_or("outside the mesh, or called without a sidecar");
        let state = if endpoint.usable { "" } else { ", not used: unhealthy or draining" };
        line(format_args!("    endpoint {} {who}{state}", endpoint.address));
    }
    if backend.endpoints.is_empty() {
        line(format_args!("    endpoint none in the documents"));
    }
    policies(line, "    policy  ", &backend.policies);
}

fn serve(line: &mut impl FnMut(std::fmt::Arguments<'_>), server: &Server) {
    let says = server.refuses.unwrap_or("lets it in");
    let place = server.origin.as_ref().map(Quote::place).unwrap_or_default();
    line(format_args!("  server    {} port {} {says}: {place}", server.workload, server.port));
    policies(line, "    policy  ", &server.policies);
}
