use clap::CommandFactory as _;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn connection_options_may_stand_before_and_after_the_command() {
    for line in [
        "blkfront --xen sim:/tmp/w --domain 3 --device xvdb info",
        "blkfront info --xen sim:/tmp/w --domain 3 --device 51728",
    ] {
        let connection = parse(line).unwrap().connection;
        assert_eq!(connection.xen, Xen::Sim("/tmp/w".into()));
        assert_eq!(connection.device.unwrap().path(connection.domain), "/local/domain/3/device/vbd/51728");
    }
}

#[test]
fn wishes_become_the_configuration() {
    let line =
        "blkfront info --queues 2 --ring-pages 16 --segments blocks --no-persistent --abi x86_32 --timeout 5";
    let config = parse(line).unwrap().connection.config(1);
    assert_eq!((config.queues, config.ring_pages, config.persistent), (2, 16, false));
    assert_eq!(config.segments, SegmentChoice::Blocks);
    assert_eq!(config.abi, Abi::X86_32);
    assert_eq!(config.timeout, Duration::from_secs(5));
    let config = parse("blkfront info").unwrap().connection.config(1);
    assert_eq!((config.queues, config.persistent, config.abi), (1, true, Abi::NATIVE));
}

#[test]
fn nonsense_is_refused_with_the_usage_code() {
    for line in [
        "blkfront",
        "blkfront info --xen sim:",
        "blkfront info --xen kvm",
        "blkfront info --queues 0",
        "blkfront info --ring-pages 33",
        "blkfront info --abi mips",
        "blkfront info --device vda",
        "blkfront copy sideways image",
        "blkfront copy in",
        "blkfront copy in image --piece 1000",
        "blkfront read --length x",
        "blkfront bench --rwmix 101",
        "blkfront bench --runtime -1",
        "blkfront bench --runtime nan",
        "blkfront nbd",
    ] {
        let error = parse(line).unwrap_err();
        assert_eq!(error.exit_code(), i32::from(crate::exit::USAGE), "{line}");
    }
}
