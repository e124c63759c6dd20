use super::*;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("blkback.toml")).map_err(|error| error.to_string())
}

#[test]
fn nothing_is_a_configuration() {
    assert_eq!(parse("").unwrap(), Config::default());
}

#[test]
fn the_example_in_the_documentation_is_right() {
    let source = include_str!("../config.rs");
    let example = source.split("//! ```").nth(1).unwrap();
    let example: String =
        example.lines().skip(1).map(|line| format!("{}\n", line.trim_start_matches("//!"))).collect();
    let config = parse(&example).unwrap();
    assert_eq!(config.offer, Offer { persistent: Some(false), ..Offer::default() });
    assert_eq!(config.daemon.strategy, Some(Strategy::Copy));
    assert_eq!(config.disks["1/xvda"].limit.and_then(|limit| limit.write_bytes), Some(100 << 20));
    assert_eq!(config.disks["1/xvda"].image.as_deref(), Some("/srv/one.img"));
}

#[test]
fn mistakes_are_named_with_file_line_and_key() {
    let syntax = |text: &str, line: usize, key: &str| {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with(&format!("blkback.toml:{line}: ")) && error.contains(key), "{error}");
    };
    syntax("[daemon]\n\nworker = 1\n", 3, "worker");
    syntax("[dæmon]\n", 1, "dæmon");
    syntax("[offer]\nring-pages = \"many\"\n", 2, "ring-pages");
    syntax("[daemon]\nstrategy = \"fast\"\n", 2, "fast");
    syntax("[disks.\"1/xvda\"]\nread-only = 1\n", 2, "read-only");
    let value = |text: &str, key: &str| {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with(&format!("blkback.toml: {key}: ")), "{error}");
    };
    value("[offer]\nring-pages = 3\n", "offer.ring-pages");
    value("[offer]\nring-pages = 64\n", "offer.ring-pages");
    value("[offer]\nqueues = 0\n", "offer.queues");
    value("[offer]\nblock-segments = 256\n", "offer.block-segments");
    value("[offer]\nindirect-segments = 4097\n", "offer.indirect-segments");
    value("[daemon]\nkinds = []\n", "daemon.kinds");
    value("[daemon]\nkinds = [\"a/b\"]\n", "daemon.kinds");
    value("[daemon]\ndomain = 40000\n", "daemon.domain");
    value("[sandbox]\nimages = [\"/srv\", \"images\"]\n", "sandbox.images");
    value("[sandbox]\nimages = [\"/srv/../etc\"]\n", "sandbox.images");
    value("[sandbox]\nimages = [\"nbd://host/export\"]\n", "sandbox.images");
    value("[sandbox]\nimages = [\"nbd+unix:///\"]\n", "sandbox.images");
    value("[sandbox]\ncredentials = [\"keys\"]\n", "sandbox.credentials");
    value("[disk]\ntimeout-s = 0\n", "disk.timeout-s");
    value("[disk]\nsector-size = 1000\n", "disk.sector-size");
    value("[disks.\"1/xvda\"]\nsector-size = 8192\n", "disks.\"1/xvda\".sector-size");
    value("[disk]\nlimit = { iops = 0 }\n", "disk.limit.iops");
    value("[disk]\nlimit = { write-bytes = \"2T\" }\n", "disk.limit.write-bytes");
    value("[disk]\nlimit = { read-iops = 1, burst-ms = 5 }\n", "disk.limit.burst-ms");
    value("[disks.\"1/xvda\"]\ngroup = \"gold\"\n", "disks.\"1/xvda\".group");
    value("[groups.gold]\niops = 2000000000\n", "groups.gold.iops");
    value("[groups.\"a b\"]\niops = 1\n", "groups.\"a b\"");
    syntax("[disk]\nlimit = { iops = -1 }\n", 2, "iops");
    syntax("[disk]\nlimit = { bytes = \"fast\" }\n", 2, "\"fast\" is no size");
    syntax("[groups.gold]\nbytes = \"99999999T\"\n", 2, "no size");
    syntax("[groups.gold]\niops = 99999999999999999999\n", 2, "iops");
    syntax("[groups.gold]\nburst-s = 1.0\n", 2, "burst-s");
    value("[disks.xvda]\nread-only = true\n", "disks.\"xvda\"");
    let error = Config::load(Path::new("/nowhere/blkback.toml")).unwrap_err().to_string();
    assert!(error.contains("/nowhere/blkback.toml"), "{error}");
}

#[test]
fn the_most_exact_name_counts_and_the_rest_comes_from_the_defaults() {
    let text = "[disk]\ndirect-io = true\n[disks.\"*/*\"]\nsector-size = 4096\n[disks.\"*/xvda\"]\nread-only = true\n\
                [disks.\"2/51712\"]\nimage = \"/b\"\n[disks.\"1/xvda\"]\nimage = \"/a\"\ndirect-io = false\n";
    let config = parse(text).unwrap();
    let one = config.disk(1, "51712", Some("xvda"));
    assert_eq!((one.image.as_deref(), one.direct_io, one.read_only), (Some("/a"), Some(false), None));
    let two = config.disk(2, "51712", None);
    assert_eq!((two.image.as_deref(), two.direct_io), (Some("/b"), Some(true)));
    assert_eq!(config.disk(3, "51712", Some("xvda")).read_only, Some(true));
    assert_eq!(config.disk(3, "51728", Some("xvdb")).sector_size, Some(4096));
}

#[test]
fn the_sample_says_what_the_defaults_on_xen_are() {
    let sample = Config::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/blkback.toml")).unwrap();
    let mut defaults = Config::default();
    (defaults.daemon.poll_us, defaults.daemon.run_dir) = (Some(0), Some("/run/blkback".into()));
    (defaults.disk.direct_io, defaults.disk.sector_size) = (Some(false), Some(512));
    defaults.disk.shared = Some(false);
    let usual = DiskConfig::default().patience();
    defaults.disk.timeout_s = Some(usual.timeout.as_secs());
    defaults.disk.reconnect_s = Some(usual.reconnect.as_secs());
    defaults.disk.settle_ms = u64::try_from(usual.settle.as_millis()).ok();
    defaults.sandbox.images = Some(["/srv", "/var/lib/xen/images"].map(PathBuf::from).into());
    assert_eq!(sample, defaults);
}

#[test]
fn every_domain_but_0_is_a_driver_domain_unless_told_otherwise() {
    let is = |text| parse(text).unwrap().is_driver_domain();
    assert!(!is("") && !is("[daemon]\ndomain = 0\n") && is("[daemon]\ndomain = 5\n"));
    assert!(is("[daemon]\ndriver-domain = true\n") && !is("[daemon]\ndomain = 5\ndriver-domain = false\n"));
}

#[test]
fn servers_are_those_that_are_named() {
    use crate::sandbox::servers::{Server, Servers};
    let servers = |text: &str| parse(text).unwrap().servers();
    assert!(servers("").is_empty() && servers("[sandbox]\nimages = [\"/srv\"]\n").is_empty());
    assert_eq!(servers("[sandbox]\nimages = [\"nbd:\"]\n"), Servers::all());
    let host = || Servers::one(Server::Tcp { host: "host".into(), port: 10809 });
    assert_eq!(servers("[sandbox]\nimages = [\"/srv\", \"nbd://host\"]\n"), host());
    assert_eq!(servers("[disk]\nimage = \"nbd:nbd://host/export\"\n"), host(), "a disk's own image");
}
