//! What comes into a device's life, and what goes out.

use std::time::Duration;

use blkif_proto::xenbus::State;

/// What the toolstack's, the script's and the guest's nodes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Our own state node; `None` when the directory is gone.
    pub own: Option<State>,
    /// The device is to exist.
    pub online: bool,
    /// The frontend's state; [`State::Unknown`] when there is no node.
    pub frontend: State,
    /// Where the hotplug script is.
    pub script: Script,
    /// The frontend announces other rings than those that are served.
    pub renewed: bool,
}

/// The hotplug script's progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// There is none to wait for.
    None,
    /// It has left the image to us, or nobody here would run one: we say `connected` in its place.
    Ours,
    /// It waits for our state 2, or is at work.
    Running,
    /// `hotplug-status` is `connected`.
    Done,
    /// `hotplug-status` says something else.
    Failed,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The nodes were read.
    Seen(Seen),
    /// The image is open, or why not.
    Opened(Result<(), String>),
    /// All rings are served, or none is and why.
    Started(Result<(), StartFailure>),
    /// Nothing of the guest is mapped or bound any more.
    Drained,
    /// The guest broke a ring's rules.
    Broken(String),
    /// The image has another size.
    Resized,
    /// The time that [`Action::Wake`] asked for has come.
    Tick,
    /// The daemon is to end.
    Shutdown,
}

/// Why rings could not be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartFailure {
    /// For people; names the key.
    pub text: String,
    /// It may work when tried again.
    pub may_pass: bool,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open the image. Answered by [`Event::Opened`].
    Open,
    /// Close the image.
    Shut,
    /// Write what is offered.
    Offer,
    /// Read the frontend's keys and serve its rings. Answered by [`Event::Started`].
    Start {
        /// An earlier daemon served them: its requests may be in there.
        used: bool,
    },
    /// Write what is offered and what the disk is.
    Announce,
    /// Write the disk's size, and the state again so that the guest looks.
    AnnounceSize,
    /// Write our state.
    SetState(State),
    /// Stop admitting requests, finish those admitted, unmap, unbind. Answered by [`Event::Drained`].
    Drain,
    /// Write what went wrong, for people and toolstack.
    Report(String),
    /// Remove what was written about an earlier error.
    Absolve,
    /// Write `connected` in the hotplug script's place.
    Approve,
    /// Send [`Event::Tick`] at this time.
    Wake(Duration),
    /// Remove the device's directory.
    Remove,
    /// The device is no longer ours to care for.
    Forget,
}
