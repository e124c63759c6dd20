//! What `blkif-proto` makes of bytes, against what C compilers make of Xen's public headers.
//!
//! `src/golden/*.c` are compiled with `gcc -m64` and `gcc -m32` and run; they print layouts and example messages, which are
//! compared with ours, both ways. `arm-abi` has the 64-bit layout. The ioctls of `xen-platform` are compared with the kernel's
//! headers likewise, and what a guest without an operating system knows with Xen's. Debian packages: gcc, gcc-multilib, libxen-dev, linux-libc-dev.
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    collections::HashMap,
    fmt::Debug,
    mem::{offset_of, size_of},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    str::FromStr,
    sync::atomic::{AtomicUsize, Ordering},
};

use blkif_proto::{
    Abi, Discard, Entry, GrantRef, Head, Limits, Op, Opcode, Operations, Parsed, Request, Response, Segment,
    SegmentMode, Segments, Status, indirect,
    keys::DiskInfo,
    segment_block,
    wire::{DiscardBody, Header32, Header64, IndirectBody, Request32, Request64, WireResponse, WireSegment},
};

/// Which ABIs a compiler's mode stands for.
const MODES: [(&str, &[Abi]); 2] = [("-m64", &[Abi::X86_64, Abi::Arm]), ("-m32", &[Abi::X86_32])];

#[test]
fn layouts_are_those_of_xens_headers() {
    for (mode, abis) in MODES {
        let output = compile_and_run("layout", mode);
        let theirs: HashMap<&str, &str> = output.lines().filter_map(|line| line.split_once(' ')).collect();
        for abi in abis {
            for (name, ours) in our_layout(*abi) {
                let theirs = theirs.get(name.as_str()).unwrap_or_else(|| panic!("layout.c prints no {name}"));
                assert_eq!(ours, *theirs, "{name} on {abi:?} ({mode})");
            }
        }
    }
}

#[test]
fn every_line_of_the_c_layout_is_compared() {
    let output = compile_and_run("layout", "-m64");
    let ours: Vec<String> = our_layout(Abi::X86_64).into_iter().map(|(name, _)| name).collect();
    for line in output.lines() {
        let name = line.split(' ').next().unwrap_or_default();
        // What the compiler's own ABI is called, and the unpadded sizes of bodies, are not ours to have.
        if !["native", "size.request", "size.discard", "size.indirect"].contains(&name) {
            assert!(ours.iter().any(|ours| ours == name), "{name} is not compared");
        }
    }
}

#[test]
fn ioctls_are_those_of_the_kernels_headers() {
    assert_same_numbers("uapi", &xen_platform::linux::layout());
}

#[test]
fn a_bare_guests_numbers_are_those_of_xens_headers() {
    assert_same_numbers("guest", &xen_platform::bare::layout());
}

/// Every number of ours is one that `src/golden/NAME.c` prints, and the other way round.
fn assert_same_numbers(name: &str, ours: &[(&str, u64)]) {
    let output = compile_and_run(name, "-m64");
    let theirs: Vec<&str> = output.lines().collect();
    let ours: Vec<String> = ours.iter().map(|(name, value)| format!("{name} {value}")).collect();
    for line in &ours {
        assert!(theirs.contains(&line.as_str()), "ours: {line}; theirs: {theirs:#?}");
    }
    assert_eq!(ours.len(), theirs.len(), "every line of {name}.c is compared");
}

#[test]
fn messages_have_the_bytes_that_c_gives_them() {
    for (mode, abis) in MODES {
        let output = compile_and_run("messages", mode);
        for abi in abis {
            let mut lines = output.lines().map(Line::new);
            let mut seen: HashMap<&str, usize> = HashMap::new();
            while let Some(line) = lines.next() {
                *seen.entry(line.kind).or_default() += 1;
                match line.kind {
                    "direct" => check_direct(&line, *abi),
                    "discard" => check_discard(&line, *abi),
                    "indirect" => check_indirect(&line, &lines.next().expect("descriptors follow"), *abi),
                    "blocks" => check_blocks(&line, &mut lines, *abi),
                    "response" => check_response(&line, *abi),
                    kind => panic!("a {kind} of its own"),
                }
            }
            for kind in ["direct", "discard", "indirect", "blocks", "response"] {
                assert!(seen.get(kind).is_some_and(|count| *count >= 13), "{kind} on {abi:?}: {seen:?}");
            }
        }
    }
}

/// Our side of every line that `layout.c` prints.
fn our_layout(abi: Abi) -> Vec<(String, String)> {
    // Offsets of `arg` (byte 1), `arg16`, id, sector and body.
    let [operation, arg, arg16, id, sector, body] = match abi {
        Abi::X86_32 => [
            offset_of!(Header32, operation),
            offset_of!(Header32, arg),
            offset_of!(Header32, arg16),
            offset_of!(Header32, id),
            offset_of!(Header32, sector),
            offset_of!(Request32, body),
        ],
        Abi::X86_64 | Abi::Arm => [
            offset_of!(Header64, operation),
            offset_of!(Header64, arg),
            offset_of!(Header64, arg16),
            offset_of!(Header64, id),
            offset_of!(Header64, sector),
            offset_of!(Request64, body),
        ],
    };
    let numbers = [
        ("size.entry", abi.entry_size()),
        ("size.segment", size_of::<WireSegment>()),
        ("size.response", abi.response_size()),
        ("ring.header", 64),
        ("blkif_request.operation", operation),
        ("blkif_request.nr_segments", arg),
        ("blkif_request.handle", arg16),
        ("blkif_request.id", id),
        ("blkif_request.sector_number", sector),
        ("blkif_request.seg", body),
        ("blkif_request_discard.operation", operation),
        ("blkif_request_discard.flag", arg),
        ("blkif_request_discard.handle", arg16),
        ("blkif_request_discard.id", id),
        ("blkif_request_discard.sector_number", sector),
        ("blkif_request_discard.nr_sectors", body + offset_of!(DiscardBody, nr_sectors)),
        ("blkif_request_indirect.operation", operation),
        ("blkif_request_indirect.indirect_op", arg),
        ("blkif_request_indirect.nr_segments", arg16),
        ("blkif_request_indirect.id", id),
        ("blkif_request_indirect.sector_number", sector),
        ("blkif_request_indirect.handle", body + offset_of!(IndirectBody, handle)),
        ("blkif_request_indirect.indirect_grefs", body + offset_of!(IndirectBody, grefs)),
        ("blkif_request_segment.gref", offset_of!(WireSegment, gref)),
        ("blkif_request_segment.first_sect", offset_of!(WireSegment, first_sect)),
        ("blkif_request_segment.last_sect", offset_of!(WireSegment, last_sect)),
        ("blkif_response.id", offset_of!(WireResponse, id)),
        ("blkif_response.operation", offset_of!(WireResponse, operation)),
        ("blkif_response.status", offset_of!(WireResponse, status)),
        ("BLKIF_OP_READ", Opcode::READ.0.into()),
        ("BLKIF_OP_WRITE", Opcode::WRITE.0.into()),
        ("BLKIF_OP_WRITE_BARRIER", Opcode::WRITE_BARRIER.0.into()),
        ("BLKIF_OP_FLUSH_DISKCACHE", Opcode::FLUSH.0.into()),
        ("BLKIF_OP_DISCARD", Opcode::DISCARD.0.into()),
        ("BLKIF_OP_INDIRECT", Opcode::INDIRECT.0.into()),
        ("BLKIF_MAX_SEGMENTS_PER_REQUEST", segment_block::HEADER_SEGMENTS),
        ("BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST", indirect::MAX_PAGES),
    ];
    let words = [
        ("BLKIF_RSP_OKAY", Status::OKAY.0.to_string()),
        ("BLKIF_RSP_ERROR", Status::ERROR.0.to_string()),
        ("BLKIF_RSP_EOPNOTSUPP", Status::NOT_SUPPORTED.0.to_string()),
        ("VDISK_CDROM", DiskInfo::CDROM.bits().to_string()),
        ("VDISK_REMOVABLE", DiskInfo::REMOVABLE.bits().to_string()),
        ("VDISK_READONLY", DiskInfo::READ_ONLY.bits().to_string()),
        ("protocol.x86_32", Abi::X86_32.as_protocol().to_owned()),
        ("protocol.x86_64", Abi::X86_64.as_protocol().to_owned()),
        ("protocol.arm", Abi::Arm.as_protocol().to_owned()),
    ];
    numbers
        .into_iter()
        .map(|(name, number)| (name.to_owned(), number.to_string()))
        .chain(words.into_iter().map(|(name, word)| (name.to_owned(), word)))
        .chain((1..=32).map(|pages| (format!("entries.{pages}"), abi.ring_entries(pages).to_string())))
        .collect()
}

fn check_direct(line: &Line<'_>, abi: Abi) {
    let limits = limits(abi, SegmentMode::Direct);
    let list = line.segments();
    let request = Request {
        id: line.field("id"),
        op: line.op(),
        sector: line.field("sector"),
        segments: Segments::from(&list[..]),
    };
    let theirs = [line.entry(abi)];
    assert_eq!(Request::parse(&theirs, &limits), Ok(Parsed::Whole(request)), "{}", line.text);
    if line.field::<u16>("handle") == 0 {
        let mut ours = [[0xAA; 112]];
        assert_eq!(request.emit(&limits, &mut ours), Ok(1));
        assert_same_entry(&ours[0], &theirs[0], abi, line);
    }
}

fn check_discard(line: &Line<'_>, abi: Abi) {
    let limits = limits(abi, SegmentMode::Direct);
    let op = Op::Discard { sectors: line.field("sectors"), secure: line.field::<u8>("secure") == 1 };
    let request =
        Request { id: line.field("id"), op, sector: line.field("sector"), segments: Segments::NONE };
    let theirs = [line.entry(abi)];
    assert_eq!(Request::parse(&theirs, &limits), Ok(Parsed::Whole(request)), "{}", line.text);
    if line.field::<u16>("handle") == 0 {
        let mut ours = [[0xAA; 112]];
        assert_eq!(request.emit(&limits, &mut ours), Ok(1));
        assert_same_entry(&ours[0], &theirs[0], abi, line);
    }
}

fn check_indirect(line: &Line<'_>, descriptors: &Line<'_>, abi: Abi) {
    let limits = limits(abi, SegmentMode::Indirect);
    let list = line.segments();
    let pages: Vec<GrantRef> = line.word("pages").split(',').map(|gref| GrantRef(number(gref))).collect();
    let request = Request {
        id: line.field("id"),
        op: line.op(),
        sector: line.field("sector"),
        segments: Segments::from(&list[..]),
    };

    let theirs = [line.entry(abi)];
    let Ok(Parsed::Indirect(indirect)) = Request::parse(&theirs, &limits) else { panic!("{}", line.text) };
    assert_eq!(indirect.pages(), pages);
    let bytes = descriptors.bytes();
    assert_eq!(indirect.descriptor_bytes(), bytes.len());
    assert_eq!(indirect.with_descriptors(&bytes, &limits), Ok(request), "{}", line.text);
    assert_eq!(Head::parse(&theirs[0], &limits).answer_op, request.op.opcode());

    let mut ours = vec![0xAA; pages.len() * 4096];
    assert_eq!(indirect::encode(request.segments, &mut ours), Some(bytes.len()));
    assert_eq!(ours[..bytes.len()], bytes);
    if line.field::<u16>("handle") == 0 {
        let mut ours = [0xAA; 112];
        assert_eq!(request.emit_indirect(&limits, &pages, &mut ours), Ok(()));
        assert_same_entry(&ours, &theirs[0], abi, line);
    }
}

fn check_blocks<'a>(line: &Line<'a>, lines: &mut impl Iterator<Item = Line<'a>>, abi: Abi) {
    let limits = limits(abi, SegmentMode::Blocks);
    let mut theirs = vec![line.entry(abi)];
    let entries = Head::parse(&theirs[0], &limits).entries as usize;
    let mut list = line.segments();
    for block in lines.take(entries - 1) {
        assert_eq!(block.kind, "block");
        list.extend(block.segments());
        theirs.push(block.bytes().try_into().expect("a block has 112 bytes"));
    }
    let request = Request {
        id: line.field("id"),
        op: line.op(),
        sector: line.field("sector"),
        segments: Segments::from(&list[..]),
    };
    assert_eq!(Request::parse(&theirs, &limits), Ok(Parsed::Whole(request)), "{}", line.text);
    let mut ours = vec![[0xAA; 112]; entries];
    assert_eq!(request.emit(&limits, &mut ours), Ok(entries));
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_same_entry(ours, theirs, abi, line);
    }
}

fn check_response(line: &Line<'_>, abi: Abi) {
    let response = Response {
        id: line.field("id"),
        op: Opcode(line.field("operation")),
        status: Status(line.field("status")),
    };
    let theirs = line.entry(abi);
    assert_eq!(Response::parse(&theirs), response, "{}", line.text);
    assert_same_entry(&response.emit(), &theirs, abi, line);
}

fn assert_same_entry(ours: &Entry, theirs: &Entry, abi: Abi, line: &Line<'_>) {
    let size = abi.entry_size();
    assert_eq!(ours[..size], theirs[..size], "{abi:?}: {}", line.text);
}

/// Room for every example.
fn limits(abi: Abi, mode: SegmentMode) -> Limits {
    let max_segments = match mode {
        SegmentMode::Direct => 11,
        SegmentMode::Blocks => u16::try_from(segment_block::max_segments(abi)).expect("at most 255"),
        SegmentMode::Indirect => 4096,
    };
    Limits {
        abi,
        mode,
        max_segments,
        max_indirect: if mode == SegmentMode::Indirect { 4096 } else { 0 },
        max_request_bytes: u32::MAX,
        max_requests: 32,
        sectors: 1 << 42,
        sector_size: 512,
        read_only: false,
        operations: Operations {
            flush: true,
            barrier: true,
            discard: Some(Discard { granularity: 0, alignment: 0, secure: true }),
        },
    }
}

/// A line of `messages.c`.
struct Line<'a> {
    text: &'a str,
    kind: &'a str,
}

impl<'a> Line<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, kind: text.split(' ').next().unwrap_or_default() }
    }

    fn word(&self, name: &str) -> &'a str {
        let mut words = self.text.split(' ').filter_map(|word| word.split_once('='));
        words.find(|(key, _)| *key == name).unwrap_or_else(|| panic!("no {name} in {}", self.text)).1
    }

    fn field<T: FromStr<Err: Debug>>(&self, name: &str) -> T {
        number(self.word(name))
    }

    fn op(&self) -> Op {
        match self.field("operation") {
            0 => Op::Read,
            1 => Op::Write,
            2 => Op::WriteBarrier,
            3 => Op::Flush,
            other => panic!("operation {other}"),
        }
    }

    fn segments(&self) -> Vec<Segment> {
        let words = self.word("segments").split(',').filter(|word| !word.is_empty());
        words
            .map(|word| {
                let [gref, first, last] = word.split(':').collect::<Vec<_>>()[..] else {
                    panic!("segment {word}")
                };
                Segment { gref: GrantRef(number(gref)), first_sect: number(first), last_sect: number(last) }
            })
            .collect()
    }

    fn bytes(&self) -> Vec<u8> {
        let digits = self.word("bytes").as_bytes().chunks(2);
        digits
            .map(|pair| {
                u8::from_str_radix(std::str::from_utf8(pair).expect("hexadecimal"), 16).expect("hexadecimal")
            })
            .collect()
    }

    /// The bytes of a ring entry, with noise behind them where the ABI's entries are shorter than ours.
    fn entry(&self, abi: Abi) -> Entry {
        let bytes = self.bytes();
        assert_eq!(bytes.len(), abi.entry_size());
        let mut entry = [0x55; 112];
        entry[..bytes.len()].copy_from_slice(&bytes);
        entry
    }
}

fn number<T: FromStr<Err: Debug>>(word: &str) -> T {
    word.parse().unwrap_or_else(|error| panic!("{word}: {error:?}"))
}

/// What `src/golden/NAME.c` prints, compiled in `mode`.
fn compile_and_run(name: &str, mode: &str) -> String {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/golden").join(name).with_extension("c");
    let program = scratch(&format!("{name}{mode}"));
    require(mode, "", "gcc-multilib (for -m32) and gcc");
    require(mode, "#include <stdint.h>\n#include <xen/io/blkif.h>\n", "libxen-dev");
    let mut gcc = Command::new("gcc");
    gcc.args([mode, "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-o"]).arg(&program).arg(&source);
    let compiled = run(&mut gcc);
    assert!(compiled.status.success(), "{}: {}", source.display(), String::from_utf8_lossy(&compiled.stderr));
    let ran = run(&mut Command::new(&program));
    std::fs::remove_file(&program).expect("the program just made");
    assert!(ran.status.success(), "{}: {}", program.display(), ran.status);
    String::from_utf8(ran.stdout).expect("ASCII")
}

/// Fails, naming the Debian packages to install, when the compiler cannot do `mode` or does not find a header.
fn require(mode: &str, code: &str, packages: &str) {
    let probe = scratch(&format!("probe{}{mode}.c", code.len()));
    std::fs::write(&probe, format!("{code}int main(void) {{ return 0; }}\n")).expect("a writable directory");
    let output = run(Command::new("gcc").args([mode, "-o", "/dev/null"]).arg(&probe));
    std::fs::remove_file(&probe).expect("the file just written");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "golden layouts need Debian's {packages}: apt-get install them\n{stderr}"
    );
}

/// A file of this call alone: tests run side by side.
fn scratch(name: &str) -> PathBuf {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("golden-{}-{call}-{name}", std::process::id()))
}

fn run(command: &mut Command) -> Output {
    match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) => panic!("{:?}: {error}; golden layouts need Debian's gcc", command.get_program()),
    }
}
