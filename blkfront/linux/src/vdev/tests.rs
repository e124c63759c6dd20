use super::*;

#[test]
fn names_become_the_numbers_of_xen_vbd_interface() {
    for (name, number) in [
        ("51712", 51712),
        ("0xca00", 51712),
        ("xvda", 51712),
        ("xvdb", 51728),
        ("xvda1", 51713),
        ("xvdp15", 202 << 8 | 15 << 4 | 15),
        ("xvdq", 1 << 28 | 16 << 8),
        ("xvdaa", 1 << 28 | 26 << 8),
        ("xvda16", 1 << 28 | 16),
        ("sda", 2048),
        ("hda", 768),
        ("hdc", 5632),
        ("hdd2", 22 << 8 | 64 | 2),
        ("d0", 51712),
        ("d0p1", 51713),
        ("d16", 1 << 28 | 16 << 8),
    ] {
        assert_eq!(name.parse(), Ok(Device::Number(number)), "{name}");
    }
}

#[test]
fn a_path_is_taken_as_it_is() {
    let device: Device = "/local/domain/7/device/vbd/51712/".parse().unwrap();
    assert_eq!(device.path(1), "/local/domain/7/device/vbd/51712");
    assert_eq!(Device::Number(51712).path(7), "/local/domain/7/device/vbd/51712");
}

#[test]
fn what_is_no_disk_is_refused() {
    for name in ["", "xvd", "xvdA", "hde", "sdq", "vda", "/", "//x", "0x", "xvda256", "dp1", "xvdaaaaa", "-1"]
    {
        assert!(name.parse::<Device>().is_err(), "{name}");
    }
}
