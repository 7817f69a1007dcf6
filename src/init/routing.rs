//! The route of tproxy: what carries the routing mark is for this namespace, whatever its destination.

use super::iptables::Family;

/// Our routing table, and the priority of the rule that leads to it (below 0, the table of local addresses).
const TABLE: &str = "133";
const PRIORITY: &str = "133";
const ROUTE: &str = "local default dev lo";

/// Arguments of `ip` that make the route and the rule, where [`undo`] has run.
pub(super) fn make(family: Family, mark: u32) -> Vec<Vec<String>> {
    let mark = mark.to_string();
    vec![
        words(family, &["route", "replace", "local", "default", "dev", "lo", "table", TABLE]),
        words(family, &["rule", "add", "priority", PRIORITY, "fwmark", &mark, "lookup", TABLE]),
    ]
}

/// Arguments of `ip` that show what there is to undo.
pub(super) fn show(family: Family) -> [Vec<String>; 2] {
    [words(family, &["rule", "show", "priority", PRIORITY]), words(family, &["route", "show", "table", TABLE])]
}

/// True when the commands of [`show`] said what those of [`make`] make.
pub(super) fn is_made(mark: u32, rules: &str, routes: &str) -> bool {
    let ours = format!("fwmark {mark:#x} lookup {TABLE}");
    let [rules, routes] = [rules, routes].map(|said| said.lines().map(str::trim_end).collect::<Vec<_>>());
    matches!(rules.as_slice(), [rule] if rule.ends_with(&ours))
        && matches!(routes.as_slice(), [route] if route.starts_with(ROUTE))
}

/// Arguments of `ip` that remove them, given what the commands of [`show`] said.
pub(super) fn undo(family: Family, rules: &str, routes: &str) -> Vec<Vec<String>> {
    let lookup = format!("lookup {TABLE}");
    let ours = rules.lines().filter(|line| line.trim_end().ends_with(&lookup));
    let marks = ours.filter_map(|line| line.split(" fwmark ").nth(1)?.split(' ').next());
    let rules =
        marks.map(|mark| words(family, &["rule", "del", "priority", PRIORITY, "fwmark", mark, "lookup", TABLE]));
    let ours = routes.lines().filter(|line| line.starts_with(ROUTE));
    let routes = ours.map(|_| words(family, &["route", "del", "local", "default", "dev", "lo", "table", TABLE]));
    rules.chain(routes).collect()
}

fn words(family: Family, words: &[&str]) -> Vec<String> {
    let family = match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    };
    std::iter::once(family).chain(words.iter().copied()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_rule_and_route_are_removed() {
        let rules =
            "133:\tfrom all fwmark 0x53a lookup 133\n133:\tfrom all lookup 133\n133:\tfrom all fwmark 0x1 lookup 7\n";
        let routes = "local default dev lo scope host\n10.0.0.0/8 dev eth0\n";
        let commands: Vec<String> = undo(Family::V4, rules, routes).iter().map(|words| words.join(" ")).collect();
        assert_eq!(
            commands,
            ["-4 rule del priority 133 fwmark 0x53a lookup 133", "-4 route del local default dev lo table 133"]
        );
        assert!(undo(Family::V6, "", "").is_empty());
    }

    #[test]
    fn what_is_made_is_not_made_again() {
        let (rules, routes) = ("133:\tfrom all fwmark 0x53a lookup 133 \n", "local default dev lo scope host \n");
        assert!(is_made(0x53a, rules, routes));
        assert!(!is_made(0x53b, rules, routes));
        assert!(!is_made(0x53a, "", routes) && !is_made(0x53a, rules, ""));
        assert!(!is_made(0x53a, &rules.repeat(2), routes));
    }
}
