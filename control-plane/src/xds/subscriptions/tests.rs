use super::*;

use proptest::{collection::vec, prelude::*};

use crate::xds::{
    dialect::Dialect,
    tests::{catalog, shop, viewer},
};

/// What a client may do, and what may happen to it.
#[derive(Clone, Debug)]
enum Step {
    Subscribe(Vec<usize>),
    Unsubscribe(Vec<usize>),
    Replace(Vec<usize>),
    Edit(usize),
    Take,
}

const NAMES: [&str; 5] = ["a.shop:80", "b.shop:80", "c.shop:80", "gone.shop:80", "nonsense"];

fn step() -> impl Strategy<Value = Step> {
    let names = || vec(0..NAMES.len(), 0..4);
    prop_oneof![
        names().prop_map(Step::Subscribe),
        names().prop_map(Step::Unsubscribe),
        names().prop_map(Step::Replace),
        (0usize..4).prop_map(Step::Edit),
        Just(Step::Take),
    ]
}

fn pick(indices: &[usize]) -> Vec<String> {
    indices.iter().map(|index| NAMES[*index].to_owned()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// However requests and edits interleave: once all was taken, the client holds
    /// exactly what it asks for, in the newest version.
    #[test]
    fn the_client_ends_with_the_newest_of_what_it_asks_for(steps in vec(step(), 1..24)) {
        let states = [
            shop(1),
            shop(2),
            shop(1).replace("name: b,", "name: c,"),
            shop(3).replace("10.0.0.3", "10.0.0.4"),
        ];
        let states: Vec<Catalog> = states.iter().map(|text| catalog(text, None)).collect();
        let viewer = viewer(Dialect::Pillion);
        let mut subscriptions = Subscriptions::default();
        let mut held: BTreeMap<String, Arc<str>> = BTreeMap::new();
        let mut wanted: BTreeSet<String> = BTreeSet::new();
        let mut current = &states[0];
        let mut take = |subscriptions: &mut Subscriptions, current: &Catalog, wanted: &BTreeSet<String>| {
            // What a client no longer asks for it drops by itself.
            held.retain(|name, _| wanted.contains(name));
            let changes = subscriptions.changes(Kind::Route, current, &viewer);
            for outgoing in changes.resources {
                held.insert(outgoing.name, outgoing.version);
            }
            for name in changes.removed {
                held.remove(&name);
            }
            held.clone()
        };
        for step in &steps {
            match step {
                Step::Subscribe(names) => {
                    wanted.extend(pick(names));
                    subscriptions.subscribe(Kind::Route, pick(names)).unwrap();
                }
                Step::Unsubscribe(names) => {
                    wanted.retain(|name| !pick(names).contains(name));
                    subscriptions.unsubscribe(Kind::Route, &pick(names));
                    take(&mut subscriptions, current, &wanted);
                }
                Step::Replace(names) => {
                    wanted = pick(names).into_iter().collect();
                    subscriptions.replace(Kind::Route, pick(names)).unwrap();
                    take(&mut subscriptions, current, &wanted);
                }
                Step::Edit(index) => {
                    current = &states[*index];
                    subscriptions.mark_changed();
                }
                Step::Take => {
                    take(&mut subscriptions, current, &wanted);
                }
            }
        }
        let held = take(&mut subscriptions, current, &wanted);
        let expected: BTreeMap<String, Arc<str>> = wanted
            .iter()
            .filter_map(|name| match current.find(Kind::Route, name, &viewer) {
                Lookup::Found(found) => Some((name.clone(), Arc::clone(found.version()))),
                _ => None,
            })
            .collect();
        prop_assert_eq!(held, expected);
        prop_assert_eq!(subscriptions.count(), wanted.len());
        prop_assert!(subscriptions.changes(Kind::Route, current, &viewer).is_empty());
    }
}
