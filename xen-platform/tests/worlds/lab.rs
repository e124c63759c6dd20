//! A world to try things in, and processes to kill.

use std::{
    any::Any,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use blkif_proto::GrantRef;
use xen_platform::{
    Access, BackWorld, DomId, EventChannels, FrontWorld, Lender, Mapper, Mapping, Port,
    fake::{self, Leaks, Machine},
    sim,
};

/// A world and its toolstack.
pub(crate) trait Lab {
    type World: FrontWorld + BackWorld;
    /// A new, empty world.
    fn new() -> Self;
    /// A new guest of 256 pages.
    fn guest(&self) -> DomId;
    fn destroy(&self, dom: DomId);
    /// A process in a domain.
    fn world(&self, dom: DomId) -> Self::World;
    /// A process in a domain that has done a deed and can be killed.
    fn victim(&self, dom: DomId, deed: Deed) -> Victim;
    fn leaks(&self) -> Leaks;
}

/// What a victim has done.
#[derive(Clone, Debug)]
pub(crate) enum Deed {
    /// Mapped these references of a guest writable.
    Map(DomId, Vec<GrantRef>),
    /// Begun to map and unmap these references of a guest, without an end.
    Churn(DomId, Vec<GrantRef>),
    /// Bound a port of a domain.
    Bind(DomId, Port),
    /// Made a port for a domain; says its number.
    Alloc(DomId),
    /// Lent this many pages to a domain; says the references.
    Lend(DomId, u32),
}

/// Whatever a deed holds until death.
type Spoils = Box<dyn Any + Send>;

impl Deed {
    fn perform<W: FrontWorld + BackWorld + 'static>(&self, world: &W) -> (Vec<u32>, Spoils) {
        match self {
            Deed::Map(from, refs) => {
                let mut mapper = world.mapper().unwrap();
                let mut mapping = mapper.mapping();
                mapper.map(*from, refs, Access::ReadWrite, &mut mapping).unwrap();
                assert_eq!(mapping.len(), refs.len());
                (vec![], Box::new((mapper, mapping)))
            }
            Deed::Churn(from, refs) => {
                let mut mapper = world.mapper().unwrap();
                let (mut mapping, from, refs) = (mapper.mapping(), *from, refs.clone());
                std::thread::spawn(move || {
                    loop {
                        if mapper.map(from, &refs, Access::ReadWrite, &mut mapping).is_ok() {
                            mapping.clear();
                        }
                    }
                });
                (vec![], Box::new(()))
            }
            Deed::Bind(remote, port) => {
                let mut events = BackWorld::events(world).unwrap();
                let port = events.bind_interdomain(*remote, *port).unwrap();
                (vec![port.0], Box::new(events))
            }
            Deed::Alloc(remote) => {
                let mut events = BackWorld::events(world).unwrap();
                let port = events.alloc_unbound(*remote).unwrap();
                (vec![port.0], Box::new(events))
            }
            Deed::Lend(to, count) => {
                let mut lender = world.lender(*to).unwrap();
                let mut pages = lender.alloc(*count as usize).unwrap();
                pages.mem().write(&vec![0xAB; pages.mem().len()]);
                lender.lend(&mut pages, Access::ReadWrite).unwrap();
                let said = pages.grants().iter().map(|gref| gref.0).collect();
                // The lender is not `'static` for every world, so it is kept alive by forgetting it.
                std::mem::forget((lender, pages));
                (said, Box::new(()))
            }
        }
    }

    fn encode(&self) -> String {
        let (name, dom, rest) = match self {
            Deed::Map(dom, refs) => ("map", dom, refs.iter().map(|gref| gref.0).collect()),
            Deed::Churn(dom, refs) => ("churn", dom, refs.iter().map(|gref| gref.0).collect()),
            Deed::Bind(dom, port) => ("bind", dom, vec![port.0]),
            Deed::Alloc(dom) => ("alloc", dom, vec![]),
            Deed::Lend(dom, count) => ("lend", dom, vec![*count]),
        };
        rest.iter().fold(format!("{name} {dom}"), |text, number| format!("{text} {number}"))
    }

    fn decode(text: &str) -> Self {
        let (name, numbers) = text.split_once(' ').unwrap();
        let numbers: Vec<u32> = numbers.split(' ').map(|number| number.parse().unwrap()).collect();
        let dom = DomId(numbers[0].try_into().unwrap());
        match name {
            "map" => Deed::Map(dom, numbers[1..].iter().copied().map(GrantRef).collect()),
            "churn" => Deed::Churn(dom, numbers[1..].iter().copied().map(GrantRef).collect()),
            "bind" => Deed::Bind(dom, Port(numbers[1])),
            "alloc" => Deed::Alloc(dom),
            "lend" => Deed::Lend(dom, numbers[1]),
            other => panic!("no deed {other}"),
        }
    }
}

/// A process that has done its deed.
pub(crate) struct Victim {
    /// Numbers that came out of the deed.
    pub(crate) said: Vec<u32>,
    process: Process,
}

enum Process {
    Fake(
        fake::World,
        #[expect(dead_code, reason = "held until after the kill, as a dead process's memory is")] Spoils,
    ),
    Real(Child),
}

impl Victim {
    /// SIGKILL, or what stands for it. Returns when the process is gone.
    pub(crate) fn kill(mut self) {
        match &mut self.process {
            Process::Fake(world, _) => world.crash(),
            Process::Real(child) => {
                child.kill().unwrap();
                child.wait().unwrap();
                // The broker hears of it by itself, a moment later.
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Process::Real(child) = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The world in one process.
pub(crate) struct FakeLab {
    pub(crate) machine: Machine,
}

impl Lab for FakeLab {
    type World = fake::World;

    fn new() -> Self {
        Self { machine: Machine::new(1) }
    }

    fn guest(&self) -> DomId {
        self.machine.create_domain(256).unwrap()
    }

    fn destroy(&self, dom: DomId) {
        self.machine.destroy_domain(dom).unwrap();
    }

    fn world(&self, dom: DomId) -> fake::World {
        self.machine.world(dom)
    }

    fn victim(&self, dom: DomId, deed: Deed) -> Victim {
        let world = self.world(dom);
        let (said, spoils) = deed.perform(&world);
        Victim { said, process: Process::Fake(world, spoils) }
    }

    fn leaks(&self) -> Leaks {
        self.machine.leaks()
    }
}

/// The world behind a socket.
pub(crate) struct SimLab {
    pub(crate) broker: sim::Broker,
    pub(crate) dir: tempfile::TempDir,
}

const DIR: &str = "XEN_PLATFORM_TEST_DIR";
const DOM: &str = "XEN_PLATFORM_TEST_DOM";
const DEED: &str = "XEN_PLATFORM_TEST_DEED";

/// What a victim's first line of news begins with.
const NEWS: &str = "done:";

impl Lab for SimLab {
    type World = sim::World;

    /// In the process of a [`Victim`], which runs the same test as its maker, this does the deed and does not return.
    fn new() -> Self {
        if let Ok(deed) = std::env::var(DEED) {
            let dom = DomId(std::env::var(DOM).unwrap().parse().unwrap());
            let world = sim::World::connect(std::env::var(DIR).unwrap(), dom).unwrap();
            let (said, _spoils) = Deed::decode(&deed).perform(&world);
            let said: Vec<String> = said.iter().map(u32::to_string).collect();
            eprintln!("{NEWS}{}", said.join(" "));
            loop {
                std::thread::park();
            }
        }
        let dir = tempfile::tempdir().unwrap();
        Self { broker: sim::Broker::start(dir.path()).unwrap(), dir }
    }

    fn guest(&self) -> DomId {
        sim::Toolstack::connect(self.dir.path()).unwrap().create_domain(256).unwrap()
    }

    fn destroy(&self, dom: DomId) {
        sim::Toolstack::connect(self.dir.path()).unwrap().destroy_domain(dom).unwrap();
    }

    fn world(&self, dom: DomId) -> sim::World {
        sim::World::connect(self.dir.path(), dom).unwrap()
    }

    fn victim(&self, dom: DomId, deed: Deed) -> Victim {
        let mut command = this_test_again();
        command.env(DIR, self.dir.path()).env(DOM, dom.to_string()).env(DEED, deed.encode());
        let mut process = Process::Real(command.stderr(Stdio::piped()).spawn().unwrap());
        let Process::Real(child) = &mut process else { unreachable!() };
        let lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let mut log = Vec::new();
        for line in lines {
            if let Some(numbers) = line.strip_prefix(NEWS) {
                let said = numbers.split_whitespace().map(|number| number.parse().unwrap()).collect();
                return Victim { said, process };
            }
            log.push(line);
        }
        panic!("the victim died before its deed was done: {log:?}");
    }

    fn leaks(&self) -> Leaks {
        self.broker.machine().leaks()
    }
}

/// A process that runs the calling test alone.
pub(crate) fn this_test_again() -> Command {
    let thread = std::thread::current();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([thread.name().unwrap(), "--exact", "--nocapture", "--test-threads=2"])
        .stdout(Stdio::null());
    command
}

/// A frontend's process and a backend's, and the guest between them.
pub(crate) struct Pair<L: Lab> {
    pub(crate) guest: DomId,
    pub(crate) front: L::World,
    pub(crate) back: L::World,
}

impl<L: Lab> Pair<L> {
    pub(crate) fn new(lab: &L) -> Self {
        let guest = lab.guest();
        Self { guest, front: lab.world(guest), back: lab.world(DomId::DOM0) }
    }
}

/// Runs `step` until it gives something, for what another process does in its own time.
pub(crate) fn soon<T>(mut step: impl FnMut() -> Option<T>) -> T {
    for _ in 0..2000 {
        if let Some(value) = step() {
            return value;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("did not happen within ten seconds");
}
