use super::*;

#[test]
fn protocol_names_are_exact() {
    for abi in Abi::ALL {
        assert_eq!(Abi::from_protocol(abi.as_protocol()), Some(abi));
    }
    for name in ["", "x86_64", "X86_64-ABI", " x86_64-abi", "x86_64-abi\n", "ia64-abi", "powerpc64-abi"] {
        assert_eq!(Abi::from_protocol(name), None, "{name:?}");
    }
}

#[test]
fn no_number_of_pages_overflows() {
    for abi in Abi::ALL {
        assert_eq!(abi.ring_entries(0), 0);
        assert_eq!(abi.ring_entries(u32::MAX), 1 << 31);
        for pages in 1..=64 {
            let entries = abi.ring_entries(pages) as usize;
            let room = pages as usize * 4096 - 64;
            assert!(entries.is_power_of_two() && entries * abi.entry_size() <= room);
            assert!(entries * 2 * abi.entry_size() > room, "{pages} pages hold more than {entries}");
        }
    }
}

#[test]
fn an_absent_protocol_is_the_32_bit_one_on_x86() {
    if cfg!(any(target_arch = "x86", target_arch = "x86_64")) {
        assert_eq!(Abi::DEFAULT_BACKEND, Abi::X86_32);
    } else {
        assert_eq!(Abi::DEFAULT_BACKEND, Abi::NATIVE);
    }
}
