//! The states, seen from the guest (docs/PROTOCOL.md sections 5.1, 5.2 and 5.5).

use anyhow::{Context as _, Result};
use blkif_proto::{Opcode, keys, xenbus::State};
use xen_platform::FrontWorld;

use crate::{
    conformance::{
        Clause, EVERY_ABI, ONE_ABI,
        rig::{Guest, Raw, States, Wish, silence, whole},
    },
    must,
};

pub(super) fn clauses<W: FrontWorld>() -> Vec<Clause<Guest<W>>> {
    vec![
        Clause {
            name: "xenbus.straight-to-connected",
            rule: "A frontend may go from 1 to 4 without 3 (0.7).",
            abis: EVERY_ABI,
            check: |guest| guest.connect(&Wish::default().state(State::Connected))?.works(),
        },
        Clause {
            name: "xenbus.initialised-for-ever",
            rule: "A frontend may stay at 3 for its whole life and is served (0.30).",
            abis: EVERY_ABI,
            check: initialised_for_ever,
        },
        Clause {
            name: "xenbus.straight-from-2-to-4",
            rule: "A backend goes from 2 to 4 with nothing in between, and through 5 to 6 (0.28, 0.30).",
            abis: ONE_ABI,
            check: straight_from_2_to_4,
        },
        Clause {
            name: "xenbus.each-state-once",
            rule: "A state is written when it changes and not again: a guest takes that for news (5.1, 8.1).",
            abis: ONE_ABI,
            check: each_state_once,
        },
        Clause {
            name: "xenbus.closing-is-answered",
            rule: "On the frontend's 5 the backend shows 5, from every state (0.8, 0.28).",
            abis: ONE_ABI,
            check: closing_is_answered,
        },
        Clause {
            name: "xenbus.closing-keeps-serving",
            rule: "While the frontend is at 5 its requests are served (0.10).",
            abis: EVERY_ABI,
            check: closing_keeps_serving,
        },
        Clause {
            name: "xenbus.closed-without-closing",
            rule: "A frontend may go to 6 from 1, 3 or 4 with no 5 in between (0.28).",
            abis: ONE_ABI,
            check: closed_without_closing,
        },
        Clause {
            name: "xenbus.unmapped-before-closed",
            rule: "When the backend shows 6 nothing of the guest is mapped, whatever was under way (0.29).",
            abis: ONE_ABI,
            check: unmapped_before_closed,
        },
        Clause {
            name: "xenbus.closed-then-again",
            rule: "After 6 the backend answers the frontend's 1 with 2, as often as it likes (0.11).",
            abis: ONE_ABI,
            check: closed_then_again,
        },
        Clause {
            name: "xenbus.ignores-what-means-nothing",
            rule: "The frontend's states 2, 7 and 8 mean nothing: the backend stays as it is and serves (5.2).",
            abis: ONE_ABI,
            check: ignores_what_means_nothing,
        },
        Clause {
            name: "xenbus.repeated-connected",
            rule: "A frontend that writes its 4 again has said nothing new (5.2).",
            abis: ONE_ABI,
            check: repeated_connected,
        },
        Clause {
            name: "xenbus.no-sensible-state",
            rule: "A state that is none is like a missing node: the frontend is gone, and may come back (5.2).",
            abis: ONE_ABI,
            check: no_sensible_state,
        },
        Clause {
            name: "xenbus.state-node-gone",
            rule: "When the frontend's node is gone the backend lets everything go (5.2).",
            abis: ONE_ABI,
            check: state_node_gone,
        },
        Clause {
            name: "xenbus.came-back-without-closing",
            rule: "A guest that crashed and begins anew from 1 is served on its new rings (5.2).",
            abis: EVERY_ABI,
            check: came_back,
        },
        Clause {
            name: "xenbus.came-back-at-once",
            rule: "The same when the backend sees nothing of it but 3 after 4 (5.2).",
            abis: ONE_ABI,
            check: came_back_at_once,
        },
        Clause {
            name: "xenbus.broken-keys-then-closed",
            rule: "A connection that was refused for its keys ends like any other (5.2).",
            abis: ONE_ABI,
            check: broken_keys_then_closed,
        },
    ]
}

fn initialised_for_ever<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    guest.wait_backend(State::InitWait)?;
    let mut connection = guest.publish(&Wish::default())?;
    guest.wait_backend(State::Connected)?;
    for _ in 0..5 {
        connection.works()?;
    }
    guest.stays(State::Connected, silence())
}

/// A whole life, and the backend's states in it: one for each event of a watch.
fn life<W: FrontWorld>(guest: &mut Guest<W>) -> Result<Vec<State>> {
    guest.wait_backend(State::InitWait)?;
    let mut states = States::watch(guest.world.store()?, &guest.vbd.backend)?;
    // Events that nobody took merge, so they are taken after every step.
    let connection = guest.publish(&Wish::default())?;
    states.until(State::Connected)?;
    for _ in 0..5 {
        guest.set_state(State::Connected)?;
    }
    guest.set_state(State::Closing)?;
    states.until(State::Closing)?;
    guest.set_state(State::Closed)?;
    states.until(State::Closed)?;
    guest.set_state(State::Closed)?;
    drop(connection);
    Ok(states.gather(silence())?.to_vec())
}

fn straight_from_2_to_4<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut path = life(guest)?;
    path.dedup();
    let wanted = [State::InitWait, State::Connected, State::Closing, State::Closed];
    must!(path == wanted, "the backend went through {path:?}");
    Ok(())
}

fn each_state_once<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let seen = life(guest)?;
    // The watch's own event, and three states.
    must!(seen.len() == 4, "the backend wrote {seen:?}");
    Ok(())
}

fn closing_is_answered<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    guest.wait_backend(State::InitWait)?;
    guest.set_state(State::Closing)?;
    guest.wait_backend(State::Closing).context("from 1")?;
    guest.restart()?;
    for state in [State::Initialised, State::Connected] {
        let connection = guest.publish(&Wish::default().state(state))?;
        guest.wait_backend(State::Connected)?;
        guest.set_state(State::Closing)?;
        guest.wait_backend(State::Closing).with_context(|| format!("from {state}"))?;
        guest.restart()?;
        drop(connection);
    }
    Ok(())
}

fn closing_keeps_serving<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    guest.set_state(State::Closing)?;
    guest.wait_backend(State::Closing)?;
    for _ in 0..10 {
        connection.works()?;
    }
    guest.stays(State::Closing, silence())?;
    connection.works()?;
    guest.set_state(State::Closed)?;
    guest.wait_backend(State::Closed)?;
    connection.take_rings_back()
}

fn closed_without_closing<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    guest.wait_backend(State::InitWait)?;
    guest.restart().context("from 1")?;
    for state in [State::Initialised, State::Connected] {
        let mut connection = guest.publish(&Wish::default().state(state))?;
        guest.wait_backend(State::Connected)?;
        connection.works()?;
        guest.set_state(State::Closed)?;
        guest.wait_backend(State::Closed).with_context(|| format!("from {state}"))?;
        connection.take_rings_back()?;
        guest.set_state(State::Initialising)?;
        guest.wait_backend(State::InitWait)?;
    }
    Ok(())
}

fn unmapped_before_closed<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    for round in 0..4 {
        let mut connection = guest.connect(&Wish::default())?;
        let page = connection.pages(1, 0)?;
        let described = connection.describe(&[whole(&page)[0]; 4096])?;
        // Enough for the backend not to be done when it hears of 6.
        for id in 0..20 {
            let raw = Raw::indirect(Opcode::READ, id, 0, 4096, described.grants());
            connection.queue().push(&raw.entries(guest.abi))?;
        }
        connection.queue().kick()?;
        let mut states = States::watch(guest.world.store()?, &guest.vbd.backend)?;
        guest.set_state(State::Closed)?;
        states.until(State::Closed)?;
        connection.take_rings_back().with_context(|| format!("round {round}"))?;
        connection.take_back(page).with_context(|| format!("round {round}"))?;
        connection.take_back(described).with_context(|| format!("round {round}"))?;
        guest.set_state(State::Initialising)?;
        guest.wait_backend(State::InitWait)?;
    }
    Ok(())
}

fn closed_then_again<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    for _ in 0..10 {
        let mut connection = guest.connect(&Wish::default())?;
        connection.works()?;
        guest.close()?;
        connection.take_rings_back()?;
        guest.stays(State::Closed, silence() / 10)?;
        guest.set_state(State::Initialising)?;
        guest.wait_backend(State::InitWait)?;
    }
    Ok(())
}

fn ignores_what_means_nothing<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let nothing = [State::InitWait, State::Reconfiguring, State::Reconfigured];
    guest.wait_backend(State::InitWait)?;
    for state in nothing {
        guest.set_state(state)?;
        guest.stays(State::InitWait, silence()).with_context(|| format!("frontend at {state}"))?;
    }
    guest.set_state(State::Initialising)?;
    let mut connection = guest.connect(&Wish::default())?;
    for state in nothing {
        guest.set_state(state)?;
        guest.stays(State::Connected, silence()).with_context(|| format!("frontend at {state}"))?;
        connection.works()?;
    }
    Ok(())
}

fn repeated_connected<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    (0..50).try_for_each(|_| guest.set_state(State::Connected))?;
    guest.stays(State::Connected, silence())?;
    connection.works()
}

fn no_sensible_state<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    for value in ["0", "", "9", "x", "44", "-4", "4 ", " 4", &"4".repeat(2000)] {
        let mut connection = guest.connect(&Wish::default())?;
        connection.works()?;
        guest.write(keys::STATE, value)?;
        guest.wait_backend(State::Closed).with_context(|| format!("frontend at {value:?}"))?;
        connection.take_rings_back()?;
        guest.set_state(State::Initialising)?;
        guest.wait_backend(State::InitWait).with_context(|| format!("after {value:?}"))?;
    }
    Ok(())
}

fn state_node_gone<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    guest.change(&[(keys::STATE, None)])?;
    guest.wait_backend(State::Closed)?;
    connection.take_rings_back()?;
    guest.set_state(State::Initialising)?;
    guest.connect(&Wish::default())?.works()
}

fn came_back<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut old = guest.connect(&Wish { queues: 3, persistent: true, ..Wish::default() })?;
    old.works()?;
    guest.set_state(State::Initialising)?;
    let mut new = guest.publish(&Wish::default())?;
    new.works().context("on the new ring")?;
    guest.wait_backend(State::Connected)?;
    old.take_rings_back().context("the old rings")
}

fn came_back_at_once<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut old = guest.connect(&Wish::default())?;
    old.works()?;
    let mut new = guest.publish(&Wish::queues(2))?;
    new.works().context("on the new ring")?;
    guest.wait_backend(State::Connected)?;
    old.take_rings_back().context("the old ring")
}

fn broken_keys_then_closed<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    guest.wait_backend(State::InitWait)?;
    guest.publish(&Wish::default().without(keys::RING_REF))?;
    guest.refused_for(keys::RING_REF)?;
    // Refused for good: nothing but closing helps.
    guest.publish(&Wish::default().state(State::Connected))?;
    guest.stays(State::Closing, silence())?;
    guest.close()?;
    guest.set_state(State::Initialising)?;
    guest.connect(&Wish::default())?.works()
}
