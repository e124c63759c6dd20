//! The whole pair: `blkfront` in a guest, `blkback`'s data plane in dom0, and who does what next.
//!
//! Between them are rings, events and XenStore of the fake world. The daemon is killed and followed by another, dom0 forgets the
//! connection, the guest is suspended and resumed, crashes and boots again; events come late, for nothing, twice; the disk finishes
//! in any order, and fails.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use blkback::config::Strategy;
use blkfront::{Config, SegmentChoice};
use blkif_proto::{
    Abi, Operations,
    keys::{BackendFeatures, RequestMaxima},
    segment_block,
    xenbus::State,
};
use xen_platform::{
    DomId, EventChannels as _, FrontWorld as _,
    fake::{self, Faults, Machine},
};

mod application;
mod daemon;
mod ledger;

use application::{Application, Waiting};
use daemon::Daemon;
use ledger::{CHUNK, CHUNKS, Ledger};

use crate::{
    chance::Chance,
    disk::{Platter, Shared, lock},
    limits::throttle,
};

pub(crate) struct Pair {
    machine: Machine,
    guest: DomId,
    program: Program,
    daemon: Daemon,
    /// Has nothing to do, and waits for it.
    idler: fake::Events,
    platter: Shared,
    ledger: Ledger,
    config: Config,
    chance: Chance,
    told: bool,
}

/// What runs in the guest.
enum Program {
    Nothing,
    Waiting(Box<Waiting>),
    Running(Box<Application>),
}

impl Pair {
    pub(crate) fn new(seed: u64, told: bool) -> Self {
        let mut chance = Chance::new(seed);
        let machine = Machine::new(seed);
        let guest = machine.create_domain(1 << 12).unwrap();
        let abi = chance.one_of(&[Abi::X86_64, Abi::X86_32]);
        let queues = 1 + chance.pick(2) as u32;
        let config = Config {
            queues,
            ring_pages: chance.one_of(&[1, 1, 2]),
            persistent: chance.pick(2) == 0,
            segments: chance.one_of(&[SegmentChoice::Direct, SegmentChoice::Blocks, SegmentChoice::Indirect]),
            abi,
            ..Config::default()
        };
        let segments = segment_block::max_segments(abi) as u16;
        let features = BackendFeatures {
            max_ring_pages: 2,
            max_queues: queues,
            max_indirect_segments: 24,
            request_maxima: Some(RequestMaxima { requests: 64, segments, bytes: u32::from(segments) * 4096 }),
            persistent: chance.pick(2) == 0,
            // Barriers order what is in one queue.
            operations: Operations { flush: true, barrier: queues == 1, discard: None },
            ..BackendFeatures::ORIGINAL
        };
        let strategy = chance.one_of(&[Strategy::Copy, Strategy::Persistent, Strategy::Direct]);
        let cache_pages = chance.one_of(&[0, 3, 1056]);
        let failures = chance.pick(4) == 0;
        let throttle = throttle(chance.pick(6));
        let faults = Faults {
            late_events: chance.one_of(&[0, 0, 200]),
            spurious_events: chance.one_of(&[0, 50]),
            ..Faults::default()
        };
        machine.set_faults(faults);
        if told {
            println!(
                "{config:?}\n{features:?}\n{strategy:?}, {cache_pages} pages, failures {failures}, {faults:?}, {throttle:?}"
            );
        }
        let platter = Arc::new(Mutex::new(Platter::new(CHUNK * CHUNKS)));
        let daemon =
            Daemon::new(&machine, guest, Arc::clone(&platter), features, strategy, cache_pages, throttle);
        let ledger = Ledger::new(failures);
        let idler = machine.world(DomId::DOM0).events().unwrap();
        Self {
            idler,
            machine,
            guest,
            program: Program::Nothing,
            daemon,
            platter,
            ledger,
            config,
            chance,
            told,
        }
    }

    fn say(&self, text: &str) {
        if self.told {
            println!("{text}");
        }
    }

    /// So many steps, and then everything comes to an end.
    pub(crate) fn run(mut self, steps: u32) {
        (0..steps).for_each(|_| self.step());
        self.say("the end");
        if let Program::Running(application) = &mut self.program {
            application.publish();
        }
        let mut idle = 0;
        while !matches!(&self.program, Program::Running(application) if application.under_way() == 0) {
            let before = self.under_way();
            self.machine.advance(Duration::from_millis(10));
            // Late events come at last when somebody waits.
            self.idler.wait(Some(Duration::ZERO)).unwrap();
            self.control();
            self.daemon.work();
            self.finish_one(false);
            self.look(false);
            idle = if self.under_way() == before { idle + 1 } else { 0 };
            assert!(idle < 400, "{before} requests are never answered");
        }
        self.check_power_loss();
        self.crash();
        while !self.daemon.is_idle() {
            self.daemon.follow();
            self.daemon.work();
            self.finish_one(false);
            idle += 1;
            assert!(idle < 1000, "the daemon keeps something of a guest that is gone");
        }
        assert_eq!(self.machine.leaks().mapped, 0);
    }

    fn under_way(&self) -> usize {
        match &self.program {
            Program::Running(application) => application.under_way(),
            _ => 0,
        }
    }

    fn step(&mut self) {
        match self.chance.pick(200) {
            0..=54 => self.submit(),
            55..=79 => {
                let at_all = self.chance.pick(6) == 0;
                self.look(at_all);
            }
            80..=129 => self.daemon.work(),
            130..=169 => {
                let fails = self.ledger.failures && self.chance.pick(6) == 0;
                self.say(if fails { "disk fails" } else { "disk finishes" });
                self.finish_one(fails);
            }
            170..=188 => self.control(),
            189 => {
                self.say("time passes");
                self.machine.advance(Duration::from_millis(self.chance.pick(100) as u64));
            }
            190 | 191 => {
                self.say("the power fails, in thought");
                self.check_power_loss();
            }
            192..=196 => {
                self.say("daemon killed");
                self.kill();
                self.daemon.start();
            }
            // What follows is for a guest that runs: one that boots would only be told to try again.
            _ if !matches!(self.program, Program::Running(_)) => self.control(),
            197 => {
                self.say("dom0 forgets");
                self.kill();
                self.daemon.forget(State::Closed);
                self.daemon.start();
            }
            198 => {
                self.say("guest suspended and resumed");
                self.kill();
                self.daemon.forget(State::Initialising);
                self.daemon.reset_frontend();
                self.daemon.start();
            }
            _ => {
                self.say("guest crashes");
                self.crash();
            }
        }
    }

    fn submit(&mut self) {
        let Program::Running(application) = &mut self.program else { return };
        let count = 1 + self.chance.pick(5);
        let (ledger, chance) = (&mut self.ledger, &mut self.chance);
        let sent = (0..count).take_while(|_| application.submit(ledger, chance)).count();
        if self.chance.pick(8) > 0 {
            application.publish();
        }
        self.say(&format!("guest submits {sent}"));
    }

    fn look(&mut self, at_all: bool) {
        let Program::Running(application) = &mut self.program else { return };
        let ended = application.look(at_all, &mut self.ledger, &self.platter);
        self.say(&format!("guest looks: {ended} ended"));
    }

    /// Somebody looks at XenStore.
    fn control(&mut self) {
        if self.chance.pick(2) == 0 {
            if let Some(told) = self.daemon.follow() {
                self.say(&format!("daemon {told}"));
            }
            return;
        }
        let states = self.daemon.states();
        self.program = match std::mem::replace(&mut self.program, Program::Nothing) {
            Program::Nothing if states == (State::InitWait, State::Initialising) => {
                self.say("guest boots");
                let world = self.machine.world(self.guest);
                let config = self.config.clone();
                Program::Waiting(Box::new(Waiting::begin(world, &self.daemon.frontend, config)))
            }
            Program::Waiting(waiting) if states.0 == State::Connected => {
                self.say("guest starts");
                Program::Running(Box::new(waiting.start()))
            }
            Program::Running(mut application) => {
                if let Some(told) = application.control() {
                    self.say(&format!("guest {told}"));
                }
                Program::Running(application)
            }
            program => program,
        };
    }

    fn finish_one(&mut self, fails: bool) {
        let choice = self.chance.next();
        self.daemon.finish_one(choice, fails);
    }

    fn kill(&mut self) {
        let fate = self.chance.next() as u64;
        self.daemon.kill(fate);
    }

    /// The guest's kernel dies; what it had asked for ends in dom0 in whatever way, and it boots again.
    fn crash(&mut self) {
        let Program::Running(application) = std::mem::replace(&mut self.program, Program::Nothing) else {
            return;
        };
        let lost = application.crash();
        self.daemon.reset_frontend();
        let mut turns = 0;
        while self.daemon.states().0 == State::Connected {
            self.daemon.follow();
            self.daemon.work();
            self.finish_one(false);
            turns += 1;
            assert!(turns < 1000, "the daemon does not let go of a dead guest");
        }
        lost.iter().for_each(|sent| self.ledger.lose(sent, &lock(&self.platter)));
    }

    fn check_power_loss(&mut self) {
        let Self { ledger, platter, chance, .. } = self;
        ledger.check_power_loss(&lock(platter), || chance.next() & 4 == 0);
    }
}
