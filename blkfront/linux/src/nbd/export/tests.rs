use blkfront::Capabilities;

use super::{super::testing, *};

const SIZE: u64 = 1 << 20;

fn check(export: &Export, command: Command, flags: u16, offset: u64, length: u32) -> Result<Job, Errno> {
    export.check(&Request { flags, command, cookie: 1, offset, length })
}

#[test]
fn good_requests_become_jobs() {
    let export = testing::export(SIZE);
    let fua = command_flags::FUA;
    for (command, flags, job) in [
        (Command::READ, 0, Job::Read { offset: 512, length: 1024 }),
        (Command::WRITE, fua, Job::Write { offset: 512, length: 1024, durable: true }),
        (
            Command::WRITE_ZEROES,
            command_flags::NO_HOLE,
            Job::Zero { offset: 512, length: 1024, durable: false },
        ),
        (Command::TRIM, 0, Job::Trim { offset: 512, length: 1024, durable: false }),
    ] {
        assert_eq!(check(&export, command, flags, 512, 1024), Ok(job));
    }
    assert_eq!(check(&export, Command::FLUSH, 0, 0, 0), Ok(Job::Flush));
}

#[test]
fn ranges_that_leave_the_disk_are_refused_also_when_they_overflow() {
    let export = testing::export(SIZE);
    for (offset, length) in
        [(SIZE, 512), (SIZE - 512, 1024), (u64::MAX - 511, 512), (u64::MAX - 511, u32::MAX)]
    {
        assert_eq!(check(&export, Command::READ, 0, offset, length.min(LARGEST_BLOCK)), Err(Errno::INVALID));
        assert_eq!(check(&export, Command::WRITE, 0, offset, length), Err(Errno::NO_SPACE));
        assert_eq!(check(&export, Command::TRIM, 0, offset, length), Err(Errno::NO_SPACE));
        assert_eq!(check(&export, Command::WRITE_ZEROES, 0, offset, length), Err(Errno::NO_SPACE));
    }
    assert_eq!(
        check(&export, Command::READ, 0, SIZE - 512, 512),
        Ok(Job::Read { offset: SIZE - 512, length: 512 })
    );
}

#[test]
fn pieces_of_sectors_and_nothing_at_all_are_refused() {
    let export = testing::export(SIZE);
    for (offset, length) in [(1, 512), (0, 511), (256, 256), (0, 0)] {
        assert_eq!(
            check(&export, Command::READ, 0, offset, length),
            Err(Errno::INVALID),
            "{offset}+{length}"
        );
        assert_eq!(
            check(&export, Command::WRITE, 0, offset, length),
            Err(Errno::INVALID),
            "{offset}+{length}"
        );
    }
}

#[test]
fn huge_reads_and_writes_are_refused_and_huge_zeroes_are_not() {
    let export = testing::export(8 << 30);
    assert_eq!(check(&export, Command::READ, 0, 0, LARGEST_BLOCK + 512), Err(Errno::TOO_LONG));
    assert_eq!(check(&export, Command::WRITE, 0, 0, LARGEST_BLOCK + 512), Err(Errno::INVALID));
    assert!(check(&export, Command::WRITE_ZEROES, 0, 0, u32::MAX - 511).is_ok());
}

#[test]
fn unknown_commands_and_flags_are_errors() {
    let export = testing::export(SIZE);
    assert_eq!(check(&export, Command(5), 0, 0, 512), Err(Errno::INVALID));
    assert_eq!(check(&export, Command(0xffff), 0, 0, 512), Err(Errno::INVALID));
    assert_eq!(check(&export, Command::READ, 1 << 2, 0, 512), Err(Errno::INVALID));
    assert_eq!(check(&export, Command::WRITE_ZEROES, 1 << 4, 0, 512), Err(Errno::INVALID));
    assert_eq!(check(&export, Command::FLUSH, 0, 512, 0), Err(Errno::INVALID));
}

#[test]
fn a_read_only_disk_takes_no_change() {
    let export = Export::new("disk", &Capabilities { read_only: true, ..testing::disk(SIZE) });
    for command in [Command::WRITE, Command::WRITE_ZEROES, Command::TRIM] {
        assert_eq!(check(&export, command, 0, 0, 512), Err(Errno::READ_ONLY));
    }
    assert!(check(&export, Command::READ, 0, 0, 512).is_ok());
    let offered = export.flags();
    assert_ne!(offered & transmission::READ_ONLY, 0);
    assert_eq!(offered & (transmission::TRIM | transmission::WRITE_ZEROES), 0);
}

#[test]
fn what_the_disk_lacks_is_not_offered_and_not_taken() {
    let plain = Capabilities { flush: false, barrier: false, discard: None, ..testing::disk(SIZE) };
    let export = Export::new("disk", &plain);
    assert_eq!(export.flags() & (transmission::FLUSH | transmission::FUA | transmission::TRIM), 0);
    assert_eq!(check(&export, Command::FLUSH, 0, 0, 0), Err(Errno::NOT_SUPPORTED));
    assert_eq!(check(&export, Command::TRIM, 0, 0, 512), Err(Errno::NOT_SUPPORTED));
    assert_eq!(check(&export, Command::WRITE, command_flags::FUA, 0, 512), Err(Errno::INVALID));
}

#[test]
fn large_sectors_bind_clients() {
    let export = Export::new("disk", &Capabilities { alignment: 4096, ..testing::disk(SIZE) });
    assert_eq!(export.blocks()[0], 4096);
    assert_eq!(check(&export, Command::READ, 0, 512, 4096), Err(Errno::INVALID));
}
