use super::*;
use crate::keys::tests::Dir;

#[test]
fn toolstack_records_round_trip() {
    let backend = ToolstackBackend {
        frontend: "/local/domain/7/device/vbd/51712".into(),
        frontend_id: 7,
        online: true,
        params: Some("aio:/images/a:b.raw".into()),
        kind: Some("vbd3".into()),
        writable: true,
        shared: true,
        device_type: DeviceType::Cdrom,
        removable: true,
        discard_enable: false,
        direct_io_safe: true,
        dev: Some("xvda".into()),
        script: Some("/etc/xen/scripts/block-tap".into()),
        hotplug: Hotplug::Waiting,
        physical_device: None,
        physical_device_path: None,
    };
    let dir = Dir::emitted(|put| backend.emit(put));
    assert_eq!(ToolstackBackend::parse(dir.get()), Ok(backend.clone()));
    assert_eq!(backend.target(), Some(Target { format: Some("aio"), path: "/images/a:b.raw" }));
    let phy = ToolstackBackend { kind: Some("phy".into()), ..backend.clone() };
    assert_eq!(phy.target(), Some(Target { format: None, path: "aio:/images/a:b.raw" }));
    let ejected = ToolstackBackend { params: None, ..backend };
    assert_eq!(ToolstackBackend::parse(Dir::emitted(|put| ejected.emit(put)).get()).unwrap().target(), None);

    let frontend = ToolstackFrontend {
        backend: "/local/domain/0/backend/vbd/7/51712".into(),
        backend_id: 0,
        virtual_device: 51712,
        device_type: DeviceType::Disk,
        trusted: false,
    };
    let dir = Dir::emitted(|put| frontend.emit(put));
    assert_eq!(ToolstackFrontend::parse(dir.get()), Ok(frontend));
}

#[test]
fn the_toolstacks_mistakes_have_names() {
    let good =
        Dir::of(&[("frontend", "/f"), ("frontend-id", "3"), ("mode", "w!"), ("hotplug-status", "connected")]);
    let record = ToolstackBackend::parse(good.get()).unwrap();
    assert!(record.writable && record.shared && record.discard_enable && !record.online);
    assert_eq!(record.hotplug, Hotplug::Connected);
    for (key, value) in [
        ("frontend", ""),
        ("mode", ""),
        ("frontend-id", "32752"),
        ("frontend-id", "99999"),
        ("online", "yes"),
        ("device-type", "tape"),
    ] {
        let dir = Dir(good.0.clone()).with(key, value);
        assert_eq!(ToolstackBackend::parse(dir.get()).unwrap_err().key(), key);
    }
    let opening = Dir(good.0.clone()).with("hotplug-status", "opening");
    assert_eq!(ToolstackBackend::parse(opening.get()).unwrap().hotplug, Hotplug::Opening);
    let failed = Dir(good.0).with("hotplug-status", "error").with("hotplug-error", "no loop device");
    assert_eq!(
        ToolstackBackend::parse(failed.get()).unwrap().hotplug,
        Hotplug::Failed("no loop device".into())
    );
    let ext = Dir::of(&[("backend", "/b"), ("backend-id", "0"), ("virtual-device-ext", "268435456")]);
    assert_eq!(ToolstackFrontend::parse(ext.get()).unwrap().virtual_device, 1 << 28);
}
