//! Several queues (docs/PROTOCOL.md section 4.4).

use anyhow::{Context as _, Result};
use blkif_proto::{Opcode, keys};
use ringbuf::Field;
use xen_platform::FrontWorld;

use crate::{
    conformance::{
        Clause, EVERY_ABI, ONE_ABI,
        rig::{Guest, Raw, TRACES, Wish, whole},
    },
    must,
};

pub(super) fn clauses<W: FrontWorld>() -> Vec<Clause<Guest<W>>> {
    vec![
        Clause {
            name: "queues.each-is-served",
            rule: "Every queue has its own ring and event channel, and is served (4.4).",
            abis: EVERY_ABI,
            check: each_queue_is_served,
        },
        Clause {
            name: "queues.one-is-at-the-top",
            rule: "multi-queue-num-queues=1 means the keys at the top (4.4, 8.1).",
            abis: ONE_ABI,
            check: one_queue_at_the_top,
        },
        Clause {
            name: "queues.do-not-wait-for-each-other",
            rule: "Queues are unordered: a barrier concerns its own (4.4).",
            abis: ONE_ABI,
            check: barrier_of_one_queue,
        },
        Clause {
            name: "queues.one-broken-closes-all",
            rule: "A broken ring of one queue closes the device (0.15, 1.5).",
            abis: ONE_ABI,
            check: one_broken_closes_all,
        },
        Clause {
            name: "queues.bad-number-refused",
            rule: "No queue, more than were offered, or no number are refused by the key (4.4).",
            abis: ONE_ABI,
            check: bad_number_of_queues,
        },
        Clause {
            name: "queues.missing-key-refused",
            rule: "What a queue's directory lacks is named with the queue (4.4).",
            abis: ONE_ABI,
            check: missing_queue_key,
        },
    ]
}

fn each_queue_is_served<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let most = guest.offers()?.max_queues;
    must!(most >= 2, "{most} queues are offered");
    for queues in 2..=most {
        let mut connection = guest.connect(&Wish::queues(queues))?;
        let page = connection.pages(1, 0x55)?;
        let slots = connection.queue().ring.layout().entries();
        for round in 0..2 * slots {
            for queue in 0..queues as usize {
                let raw = Raw::read(round.into(), 0, &whole(&page));
                must!(connection.ask_on(queue, &raw)?.0 == 0, "queue {queue}, round {round}");
            }
        }
        connection.take_back(page)?;
        guest.close()?;
        connection.take_rings_back()?;
        guest.restart()?;
    }
    Ok(())
}

fn one_queue_at_the_top<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    guest.connect(&Wish::default().with(keys::MULTI_QUEUE_NUM_QUEUES, "1"))?.works()
}

fn barrier_of_one_queue<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::queues(2))?;
    let page = connection.pages(1, 0)?;
    for round in 0..50 {
        for (queue, op) in [(0, Opcode::WRITE_BARRIER), (1, Opcode::WRITE)] {
            for n in 0..8 {
                let raw = Raw::data(op, n, TRACES + 8 * n, &whole(&page));
                connection.queues[queue].push(&raw.entries(guest.abi))?;
            }
            connection.queues[queue].kick()?;
        }
        for queue in [1, 0] {
            for _ in 0..8 {
                let answer = connection.queues[queue].answer()?;
                must!(answer.status.0 == 0, "round {round}: {answer:?}");
            }
        }
    }
    connection.take_back(page)
}

fn one_broken_closes_all<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::queues(2))?;
    connection.queues[1].set_index(Field::ReqProd, 99);
    connection.queues[1].ring_bell()?;
    guest.refused_for("queue 1")?;
    guest.restart()?;
    connection.take_rings_back()?;
    guest.connect(&Wish::queues(2))?.works()
}

fn bad_number_of_queues<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let key = keys::MULTI_QUEUE_NUM_QUEUES;
    let beyond = (guest.offers()?.max_queues + 1).to_string();
    for value in ["0", &beyond, "4294967297", "-1", "two"] {
        guest.publish(&Wish::default().with(key, value))?;
        guest.refused_for(key).with_context(|| value.to_owned())?;
        guest.restart()?;
    }
    guest.connect(&Wish::default())?.works()
}

fn missing_queue_key<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    for key in ["queue-0/ring-ref", "queue-1/ring-ref", "queue-1/event-channel"] {
        guest.publish(&Wish::queues(2).without(key))?;
        guest.refused_for(key)?;
        guest.restart()?;
    }
    guest.connect(&Wish::queues(2))?.works()
}
