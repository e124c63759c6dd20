//! The backend of Xen block I/O: a daemon that serves disk images to guests.
//!
//! ```text
//!             control plane (one thread, tokio)                data plane (a thread per processor)
//!
//!  XenStore ──▶ watch ──▶ vbd: (state, event) ─▶ actions ──▶ worker: wait ─▶ reap ─▶ respond ─▶ admit ─▶ map ─▶ submit
//!      ▲                          │                             │  ▲            rings, grants, event channels      │
//!      └──────── publish ◀────────┘                             └──┴─────────────── io_uring ◀────────────────────┘
//! ```
//!
//! [`daemon::run`] is the whole program, for any world that implements [`BackWorld`](xen_platform::BackWorld); [`config`]
//! says what it does. [`control`] finds the virtual block devices and walks each through its states; [`data`] moves
//! requests, and nothing else does; [`limit`] says when they may go, [`metrics`] how many went; [`storage`] is where the sectors live.
//!
//! Guests are hostile: what they write is copied once, parsed once and bounded; a guest that breaks the rules loses its own
//! device and nothing else. What has been taken from a ring is answered exactly once, by this daemon or, when it is killed, by the
//! next one ([`log`]).
//!
//! Limits: what is neither file nor block device is served through a copy in memory of ours ([`storage`]).

pub mod config;
pub mod control;
pub mod ctl;
pub mod daemon;
pub mod data;
pub mod limit;
pub mod log;
pub mod metrics;
pub mod run_dir;
pub mod sandbox;
pub mod stats;
pub mod steps;
pub mod storage;
