use super::*;

fn tcp(host: &str, port: u16) -> Server {
    Server::Tcp { host: host.into(), port }
}

fn parse(text: &str) -> (Server, String) {
    let uri = Uri::parse(text).unwrap();
    assert_eq!(uri.tls, None);
    (uri.server, uri.export)
}

#[test]
fn servers_and_exports() {
    assert_eq!(parse("nbd://host"), (tcp("host", 10809), String::new()));
    assert_eq!(parse("nbd://Host:81/"), (tcp("host", 81), String::new()));
    assert_eq!(parse("nbd://[::1]:81/a/b%20c"), (tcp("::1", 81), "a/b c".into()));
    assert_eq!(parse("nbd://10.0.0.1//a"), (tcp("10.0.0.1", 10809), "/a".into()));
    let unix = (Server::Unix("/run/a b".into()), "x".into());
    assert_eq!(parse("nbd+unix:///x?socket=/run/a%20b"), unix);
    assert_eq!(parse("nbd+unix:///x?socket=%2Frun%2Fa%20b"), unix);
}

#[test]
fn who_they_are() {
    let tls = |text: &str| Uri::parse(text).unwrap().tls.unwrap();
    let psk = |user: Option<&str>| Tls::Psk { file: "/k".into(), user: user.map(str::to_owned) };
    assert_eq!(tls("nbds://host/?tls-psk-file=/k"), psk(None));
    assert_eq!(tls("nbds+unix://me@/?socket=/s&tls-psk-file=/k"), psk(Some("me")));
    let by =
        |server: Option<&str>| Tls::Certificates { folder: "/c".into(), server: server.map(str::to_owned) };
    assert_eq!(tls("nbds://host/?tls-certificates=/c"), by(Some("host")));
    assert_eq!(tls("nbds://host/?tls-certificates=/c&tls-hostname=other"), by(Some("other")));
    assert_eq!(tls("nbds+unix:///?tls-certificates=/c&socket=/s"), by(Some("localhost")));
    assert_eq!(tls("nbds://host/?tls-certificates=/c&tls-verify-peer=false"), by(None));
}

#[test]
fn what_is_wrong_is_named() {
    let wrong = |text: &str| Uri::parse(text).unwrap_err();
    assert!(matches!(wrong("nbd"), UriError::Syntax(_)));
    assert!(matches!(wrong("nbd://host:99999/"), UriError::Syntax(_)));
    assert!(matches!(wrong("nbd://host/%00"), UriError::Syntax(_)));
    assert!(matches!(wrong("nbd://host/%FF"), UriError::Syntax(_)));
    assert_eq!(wrong("http://host/"), UriError::Scheme("http".into()));
    for text in
        ["nbd:host:10809", "nbd:///x", "nbd+unix:///x", "nbd+unix://h/x?socket=/s", "nbd://h/?socket=/s"]
    {
        assert_eq!(wrong(text), UriError::Server, "{text}");
    }
    for (text, key) in
        [("nbd://h/?sokcet=/s", "sokcet"), ("nbds://h/?tls-verify-peer=maybe", "tls-verify-peer")]
    {
        assert_eq!(wrong(text), UriError::Parameter(key.into()));
    }
    for text in ["nbds://h", "nbd://h/?tls-psk-file=/k", "nbds://h/?tls-psk-file=/k&tls-certificates=/c"] {
        assert_eq!(wrong(text), UriError::Credentials, "{text}");
    }
}

#[test]
fn an_export_has_one_name() {
    let name = |text: &str| Uri::parse(text).unwrap().to_string();
    assert_eq!(name("nbd://h"), name("nbds://H:10809/?tls-psk-file=/k"));
    assert_ne!(name("nbd://h"), name("nbd://h/x"));
    assert_eq!(name("nbd+unix:///x?socket=/s"), "nbd /s \"x\"");
}
