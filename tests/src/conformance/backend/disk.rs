//! The image behind the disk: what reaches it, read-only disks, other sectors, other sizes (docs/PROTOCOL.md sections 2.3, 2.4, 4.3
//! and 5.5).

use anyhow::Result;
use blkif_proto::{Opcode, Segment, Status, keys};
use xen_platform::{Access, Store as _};

use crate::{
    conformance::{
        Clause, EVERY_ABI, ONE_ABI,
        rig::{CONFIG, IMAGE_BYTES, Image, Raw, Rig, TRACES, Wish, dirty_pages, noise, whole},
    },
    must,
};

pub(super) fn clauses() -> Vec<Clause<Rig>> {
    vec![
        Clause {
            name: "disk.reads-the-image",
            rule: "What a guest reads is what the image holds (2.5).",
            abis: EVERY_ABI,
            check: reads_the_image,
        },
        Clause {
            name: "disk.writes-the-image",
            rule: "What was answered okay is in the image, and nothing else has changed there (2.5).",
            abis: EVERY_ABI,
            check: writes_the_image,
        },
        Clause {
            name: "disk.discards-the-image",
            rule: "A discard gives the image's space back where it can (2.5).",
            abis: ONE_ABI,
            check: discards_the_image,
        },
        Clause {
            name: "disk.no-page-of-another-guest",
            rule: "A guest reads nothing but its own disk, whatever others moved before (2.5).",
            abis: ONE_ABI,
            check: no_page_of_another_guest,
        },
        Clause {
            name: "flush.makes-durable",
            rule: "When a flush is answered, every write that was answered before it is on the medium (0.18, 2.5).",
            abis: ONE_ABI,
            check: |rig| durable(rig, Opcode::FLUSH, false),
        },
        Clause {
            name: "flush.with-data-makes-the-earlier-durable",
            rule: "A flush with data first makes durable what was answered before it (0.18).",
            abis: ONE_ABI,
            check: |rig| durable(rig, Opcode::FLUSH, true),
        },
        Clause {
            name: "barrier.makes-durable",
            rule: "When a barrier is answered, its data and all before it are on the medium: Linux relies on it (0.18, 2.5).",
            abis: ONE_ABI,
            check: |rig| durable(rig, Opcode::WRITE_BARRIER, true),
        },
        Clause {
            name: "barrier.empty-makes-durable",
            rule: "An empty barrier is a flush (0.17, 2.5).",
            abis: ONE_ABI,
            check: |rig| durable(rig, Opcode::WRITE_BARRIER, false),
        },
        Clause {
            name: "read-only.changes-nothing",
            rule: "On a read-only disk reads are served and all that would change it is an error (2.4).",
            abis: EVERY_ABI,
            check: read_only,
        },
        Clause {
            name: "sector-size.4096",
            rule: "With larger sectors units stay 512 bytes, and requests are whole sectors of the disk (0.12, 2.3, 2.4).",
            abis: EVERY_ABI,
            check: sectors_of_4096,
        },
        Clause {
            name: "features.off",
            rule: "What is turned off is not offered, and asking for it all the same is not supported (0.19, 0.27).",
            abis: EVERY_ABI,
            check: features_off,
        },
        Clause {
            name: "discard.not-offered",
            rule: "Where the toolstack says no discard it is not offered, and asking for it is not supported (0.19, 4.1).",
            abis: EVERY_ABI,
            check: discard_not_offered,
        },
    ]
}

fn reads_the_image(rig: &mut Rig) -> Result<()> {
    let image = rig.image()?;
    let data = noise(1, 100 * 4096);
    image.write(TRACES, &data)?;
    let mut connection = rig.guest_with(&image.disk())?.connect(&Wish::default())?;
    must!(connection.read(TRACES, data.len())? == data, "direct requests");
    let pages = connection.pages(100, 0)?;
    must!(connection.indirect(Opcode::READ, TRACES, &whole(&pages))? == Status::OKAY, "indirect");
    must!(crate::conformance::rig::bytes(&pages) == data, "an indirect request");
    connection.take_back(pages)
}

fn writes_the_image(rig: &mut Rig) -> Result<()> {
    let image = rig.image()?;
    let mut wanted = noise(2, IMAGE_BYTES as usize);
    image.write(0, &wanted)?;
    let mut connection = rig.guest_with(&image.disk())?.connect(&Wish::default())?;
    for (n, (sector, sectors)) in [(65, 1), (100, 30), (1000, 88), (32760, 8), (7, 9)].into_iter().enumerate()
    {
        let data = noise(100 + n as u64, sectors * 512);
        connection.write(sector as u64, &data)?;
        wanted[sector * 512..][..data.len()].copy_from_slice(&data);
        must!(image.read(sector as u64, data.len())? == data, "write {n} is not in the image");
    }
    let data = noise(3, 60 * 4096);
    let pages = connection.lend(&data, Access::Read)?;
    must!(connection.indirect(Opcode::WRITE, 2000, &whole(&pages))? == Status::OKAY, "indirect");
    wanted[2000 * 512..][..data.len()].copy_from_slice(&data);
    must!(image.read(0, wanted.len())? == wanted, "the image has changed elsewhere");
    Ok(())
}

fn discards_the_image(rig: &mut Rig) -> Result<()> {
    let image = rig.image()?;
    image.write(0, &noise(4, 1 << 20))?;
    image.file().sync_all()?;
    let mut connection = rig.guest_with(&image.disk())?.connect(&Wish::default())?;
    let before = image.allocated()?;
    connection.okay(&Raw::discard(1, 0, 2048))?;
    let after = image.allocated()?;
    must!(after + (1 << 19) < before, "{before} bytes before, {after} after a discard of 1 MiB");
    Ok(())
}

fn no_page_of_another_guest(rig: &mut Rig) -> Result<()> {
    let mut rich = rig.guest()?;
    let mut poor = rig.guest()?;
    let (mut rich, mut poor) = (rich.connect(&Wish::default())?, poor.connect(&Wish::default())?);
    for round in 0..20 {
        rich.write(TRACES, &noise(round, 11 * 4096))?;
        rich.read(TRACES, 11 * 4096)?;
        let bytes = poor.read(TRACES, 11 * 4096)?;
        must!(bytes.iter().all(|byte| *byte == 0), "round {round}: bytes that the disk never held");
    }
    Ok(())
}

/// Writes 40 pages, then asks for durability, and looks which pages of the file are still only in memory.
fn durable(rig: &mut Rig, op: Opcode, with_data: bool) -> Result<()> {
    let image = Image::on_medium(IMAGE_BYTES)?;
    // Through the page cache: what goes past it leaves no trace.
    rig.configure(CONFIG)?;
    let mut connection = rig.guest_with(&image.disk())?.connect(&Wish::default())?;
    for round in 0..5 {
        connection.write(TRACES, &noise(round, 40 * 4096))?;
        let (first, after) = (TRACES / 8, TRACES / 8 + 40);
        must!(dirty_pages(image.file(), first..after)? > 0, "nothing to be made durable");
        let pages = connection.pages(11, 0x55)?;
        let segments = if with_data { whole(&pages) } else { Vec::new() };
        connection.okay(&Raw::data(op, 1, TRACES + 320, &segments))?;
        // The data of a flush may wait for the next one, that of a barrier may not.
        let end = if op == Opcode::WRITE_BARRIER { after + 11 } else { after };
        let left = dirty_pages(image.file(), first..end)?;
        must!(left == 0, "round {round}: {left} pages are not on the medium");
        connection.take_back(pages)?;
    }
    Ok(())
}

fn read_only(rig: &mut Rig) -> Result<()> {
    let image = rig.image()?;
    let data = noise(5, 16 * 4096);
    image.write(TRACES, &data)?;
    let mut disk = image.disk();
    disk.writable = false;
    let mut guest = rig.guest_with(&disk)?;
    let mut connection = guest.connect(&Wish::default())?;
    let told = guest.disk()?.info;
    must!(told.contains(keys::DiskInfo::READ_ONLY), "info is {told:?}");
    must!(connection.read(TRACES, data.len())? == data, "other bytes than the image's");
    let pages = connection.pages(12, 0x55)?;
    let segments = whole(&pages);
    for op in [Opcode::WRITE, Opcode::WRITE_BARRIER, Opcode::FLUSH] {
        connection.error(&Raw::data(op, 1, TRACES, &segments[..11]))?;
    }
    must!(connection.indirect(Opcode::WRITE, TRACES, &segments)? == Status::ERROR, "an indirect write");
    must!(connection.indirect(Opcode::READ, TRACES, &segments)? == Status::OKAY, "an indirect read");
    let discard = connection.ask(&Raw::discard(2, TRACES, 8))?;
    must!(discard != Status::OKAY, "a discard on a read-only disk is {discard}");
    connection.take_back(pages)?;
    // An error would make Linux stop flushing, and there is nothing to flush.
    connection.okay(&Raw::data(Opcode::FLUSH, 3, u64::MAX, &[]))?;
    must!(image.read(TRACES, data.len())? == data, "the image of a read-only disk has changed");
    Ok(())
}

fn sectors_of_4096(rig: &mut Rig) -> Result<()> {
    rig.configure(&format!("{CONFIG}[disk]\nsector-size = 4096\n"))?;
    let image = rig.image()?;
    let mut guest = rig.guest_with(&image.disk())?;
    let mut connection = guest.connect(&Wish::default())?;
    let told = guest.disk()?;
    must!(told.sector_size == 4096 && told.sectors == IMAGE_BYTES / 512, "{told:?}");
    let data = noise(6, 3 * 4096);
    connection.write(TRACES, &data)?;
    must!(image.read(TRACES, data.len())? == data, "sector numbers are not in units of 512 bytes");
    let pages = connection.pages(2, 0)?;
    let [a, b] = whole(&pages)[..] else { unreachable!("two pages") };
    let half = Segment { last_sect: 3, ..a };
    let other_half = Segment { first_sect: 4, ..b };
    for op in [Opcode::READ, Opcode::WRITE, Opcode::FLUSH] {
        connection.error(&Raw::data(op, 1, TRACES + 1, &[a]))?;
        connection.error(&Raw::data(op, 2, TRACES + 4, &[a, b]))?;
        connection.error(&Raw::data(op, 3, TRACES, &[half]))?;
        connection.error(&Raw::data(op, 4, TRACES, &[half, other_half]))?;
        connection.okay(&Raw::data(op, 5, TRACES, &[a, b]))?;
    }
    connection.take_back(pages)?;
    connection.okay(&Raw::data(Opcode::FLUSH, 6, u64::MAX, &[]))?;
    connection.okay(&Raw::discard(7, TRACES, 8))
}

/// The original protocol and nothing else.
const NOTHING: &str = r"
[daemon]
shutdown-s = 0
[offer]
ring-pages = 1
queues = 1
block-segments = 0
indirect-segments = 0
persistent = false
flush = false
barrier = false
discard = false
";

fn features_off(rig: &mut Rig) -> Result<()> {
    rig.configure(NOTHING)?;
    let mut guest = rig.guest()?;
    let mut connection = guest.connect(&Wish::default())?;
    let offered: Vec<String> = guest.store.list(&guest.vbd.backend)?;
    let known = |key: &&String| {
        ["feature-", "max-", "multi-queue-"].iter().any(|prefix| key.starts_with(prefix))
            || key.starts_with("discard-") && *key != keys::DISCARD_ENABLE
    };
    must!(!offered.iter().any(|key| known(&key)), "offered: {offered:?}");
    let pages = connection.pages(12, 0x55)?;
    connection.unsupported(&Raw::data(Opcode::FLUSH, 1, 0, &[]))?;
    connection.unsupported(&Raw::data(Opcode::WRITE_BARRIER, 2, TRACES, &whole(&pages)[..1]))?;
    connection.unsupported(&Raw::discard(3, 0, 8))?;
    let indirect = connection.indirect(Opcode::READ, 0, &whole(&pages))?;
    must!(indirect == Status::NOT_SUPPORTED, "{indirect} to an indirect request");
    connection.take_back(pages)?;
    connection.works()?;
    for (key, value) in [(keys::RING_PAGE_ORDER, "1"), (keys::MULTI_QUEUE_NUM_QUEUES, "2")] {
        guest.restart()?;
        guest.publish(&Wish::default().with(key, value))?;
        guest.refused_for(key)?;
    }
    // Of what was not offered, these may be written by any frontend.
    guest.restart()?;
    let wish = Wish::persistent().with(keys::MAX_REQUEST_SEGMENTS, "33").with(keys::MAX_REQUESTS, "64");
    guest.connect(&wish)?.works()
}

fn discard_not_offered(rig: &mut Rig) -> Result<()> {
    let image = rig.image()?;
    let data = noise(7, 4096);
    image.write(TRACES, &data)?;
    let mut disk = image.disk();
    disk.discard = false;
    let mut guest = rig.guest_with(&disk)?;
    let mut connection = guest.connect(&Wish::default())?;
    must!(guest.backend_key(keys::FEATURE_DISCARD)?.is_none(), "discard is offered");
    connection.unsupported(&Raw::discard(1, TRACES, 8))?;
    connection.unsupported(&Raw { arg: 1, ..Raw::discard(2, TRACES, 8) })?;
    must!(image.read(TRACES, 4096)? == data, "discarded all the same");
    Ok(())
}
