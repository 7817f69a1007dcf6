use super::*;

use std::path::PathBuf;

fn service(name: &str, port: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n")
}

fn compose(state: &mut State, files: &[(&str, String)]) -> (Vec<String>, Vec<Problem>) {
    let contents: Vec<(PathBuf, Content)> =
        files.iter().map(|(path, text)| (PathBuf::from(path), Content::parse(text, None))).collect();
    let update = state.compose(contents.iter().map(|(path, content)| (path.as_path(), content)));
    let names = update.objects.keys().map(|id| id.name.name.clone()).collect();
    (names, update.problems)
}

fn port_of(state: &State, name: &str) -> u16 {
    state
        .in_force
        .values()
        .find_map(|accepted| match &accepted.object {
            Object::Service(service) if service.name.name == name => Some(service.ports[0].port),
            _ => None,
        })
        .unwrap()
}

#[test]
fn a_refused_object_keeps_its_last_good_version_and_recovers() {
    let mut state = State::default();
    compose(&mut state, &[("a.yaml", service("a", "80"))]);
    let (names, problems) = compose(&mut state, &[("a.yaml", service("a", "0"))]);
    assert_eq!(names, ["a"]);
    assert_eq!(port_of(&state, "a"), 80);
    assert!(problems[0].previous_in_force);
    assert_eq!(problems[0].field, "spec.ports[0].port");
    assert_eq!(problems[0].line, 4);
    let (_, problems) = compose(&mut state, &[("a.yaml", service("a", "81"))]);
    assert_eq!(port_of(&state, "a"), 81);
    assert!(problems.is_empty());
}

#[test]
fn a_bad_object_does_not_hurt_its_neighbours() {
    let mut state = State::default();
    let text = format!("{}---\n{}---\n{}", service("a", "80"), service("b", "0"), service("c", "80"));
    let (names, problems) = compose(&mut state, &[("all.yaml", text)]);
    assert_eq!(names, ["a", "c"]);
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].line, 9);
}

#[test]
fn text_that_is_no_yaml_keeps_what_the_file_held() {
    let mut state = State::default();
    let good = format!("{}---\n{}", service("a", "80"), service("b", "80"));
    compose(&mut state, &[("all.yaml", good), ("other.yaml", service("c", "80"))]);
    let broken = format!("{}---\nkind: [Service\n", service("a", "81"));
    let (names, problems) = compose(&mut state, &[("all.yaml", broken)]);
    assert_eq!(names, ["a", "b"], "c's file is gone, b may be what is broken");
    assert_eq!(port_of(&state, "a"), 81);
    assert_eq!(problems.len(), 1);
    let (names, _) = compose(&mut state, &[("all.yaml", service("a", "81"))]);
    assert_eq!(names, ["a"]);
}

#[test]
fn an_unreadable_file_keeps_what_it_held() {
    let mut state = State::default();
    compose(&mut state, &[("a.yaml", service("a", "80"))]);
    let content = Content::Unreadable("permission denied".to_owned());
    let update = state.compose([(Path::new("a.yaml"), &content)].into_iter());
    assert_eq!(update.objects.len(), 1);
    assert_eq!(update.problems.len(), 1);
}

#[test]
fn of_two_documents_for_one_object_the_first_by_path_wins() {
    let mut state = State::default();
    let files = [("a.yaml", service("x", "80")), ("b.yaml", service("x", "81"))];
    let (names, problems) = compose(&mut state, &files);
    assert_eq!(names, ["x"]);
    assert_eq!(port_of(&state, "x"), 80);
    assert_eq!(problems[0].file, Path::new("b.yaml"));
    assert!(problems[0].reason.contains("a.yaml:1"), "{}", problems[0].reason);
}

#[test]
fn deletion_removes() {
    let mut state = State::default();
    compose(&mut state, &[("a.yaml", service("a", "80"))]);
    let (names, problems) = compose(&mut state, &[]);
    assert!(names.is_empty() && problems.is_empty());
}

#[test]
fn documents_that_did_not_change_are_kept() {
    let text = |port: &str| format!("{}---\n{}", service("a", "80"), service("b", port));
    let before = Content::parse(&text("80"), None);
    let after = Content::parse(&text("81"), Some(&before));
    let (Content::Documents(before), Content::Documents(after)) = (before, after) else { panic!("documents") };
    assert!(Arc::ptr_eq(&before[0], &after[0]));
    assert!(!Arc::ptr_eq(&before[1], &after[1]));
}

#[test]
fn a_broken_document_is_not_replaced_by_a_later_one_for_the_same_object() {
    let mut state = State::default();
    let old = ("route.yaml", service("a", "80"));
    compose(&mut state, &[("new.yaml", service("a", "81")), old.clone()]);
    assert_eq!(port_of(&state, "a"), 81, "moved: the new file comes first by path");
    for broken in [service("a", "0"), "kind: [Service\n".to_owned()] {
        compose(&mut state, &[("new.yaml", broken.clone()), old.clone()]);
        assert_eq!(port_of(&state, "a"), 81, "the old file has not been removed yet: {broken}");
        let (names, problems) = compose(&mut state, &[("new.yaml", broken)]);
        assert_eq!((names.as_slice(), port_of(&state, "a")), (&["a".to_owned()][..], 81), "and now it has");
        assert_eq!(problems.len(), 1);
    }
}
