use super::*;

fn parse(text: &str) -> Result<String, Errno> {
    NodePath::parse(text, &NodePath::of_domain(DomId(7))).map(|path| path.to_string())
}

#[test]
fn paths_are_absolute_relative_or_special() {
    assert_eq!(parse("/").as_deref(), Ok("/"));
    assert_eq!(parse("/a/b-c_d@9").as_deref(), Ok("/a/b-c_d@9"));
    assert_eq!(parse("device/vbd").as_deref(), Ok("/local/domain/7/device/vbd"));
    assert_eq!(parse("@releaseDomain").as_deref(), Ok("@releaseDomain"));
}

#[test]
fn malformed_paths_are_refused() {
    for text in ["", "/a/", "//", "/a//b", "a/", "/a b", "/ä", "/a\u{0}", "/a.b", "@a/b"] {
        assert_eq!(parse(text), Err(Errno::Inval), "{text:?}");
    }
}

#[test]
fn paths_have_limits() {
    assert!(parse(&format!("/{}", "a".repeat(ABS_PATH_MAX - 1))).is_ok());
    assert!(parse(&format!("/{}", "a".repeat(ABS_PATH_MAX))).is_err());
    assert!(parse(&"a".repeat(REL_PATH_MAX)).is_ok());
    assert!(parse(&"a".repeat(REL_PATH_MAX + 1)).is_err());
}

#[test]
fn parents_and_cover() {
    let path = |text: &str| NodePath(text.into());
    assert_eq!(path("/a/b").parent(), Some(path("/a")));
    assert_eq!(path("/a").parent(), Some(path("/")));
    assert_eq!(path("/").parent(), None);
    assert_eq!(path("@x").parent(), None);
    assert_eq!(path("/").child("a"), path("/a"));
    assert_eq!(path("/a").child("b").name(), "b");
    assert!(
        path("/").covers(&path("/a")) && path("/a").covers(&path("/a/b")) && path("/a").covers(&path("/a"))
    );
    assert!(!path("/a").covers(&path("/ab")) && !path("/a/b").covers(&path("/a")));
    assert!(!path("/").covers(&path("@x")));
    assert_eq!(path("/a/b/c").relative_to(&path("/a")), Some("b/c"));
    assert_eq!(path("/ab").relative_to(&path("/a")), None);
}
