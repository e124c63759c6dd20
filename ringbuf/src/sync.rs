//! Atomics and fences: the processor's, or loom's under `--cfg loom`.
//!
//! [`RingMem`](crate::RingMem) accesses are all relaxed; the four fences here are the only order there is. Each names
//! the access of the peer that it pairs with and the loom test that fails without it.

#[cfg(not(loom))]
use core::sync::atomic::fence as raw_fence;
#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicU32, Ordering};

#[cfg(loom)]
use loom::sync::atomic::fence as raw_fence;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, Ordering};

/// A place in the ring's logic where order matters.
#[cfg_attr(not(loom), expect(unreachable_pub, reason = "public for the models only"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fence {
    /// Producer: slots written before the producer index is stored. Release; pairs with the peer's [`Fence::Observe`]:
    /// who sees the index sees the slots. It also ends our reads of slots before the peer may reuse them.
    /// Loom: `a_request_is_visible_when_its_index_is`; without it `data_is_lost_without_the_publish_fence`.
    Publish,
    /// Consumer: the producer index loaded before slots are read or reused. Acquire; pairs with the peer's
    /// [`Fence::Publish`].
    /// Loom: `a_request_is_visible_when_its_index_is`; without it `data_is_lost_without_the_observe_fence`.
    Observe,
    /// Producer: the producer index stored before the event index is loaded. Full; pairs with the peer's
    /// [`Fence::ArmThenLook`]: of two ends that store one index and then load the other's, at least one sees what the
    /// other stored. So either we see the event index and notify, or the consumer sees our producer index and does not
    /// sleep.
    /// Loom: `no_wakeup_is_lost_by_the_backend`, `.._by_the_frontend`; without it
    /// `the_backend_sleeps_forever_without_the_publishers_fence`, `the_frontend_..`.
    PublishThenLook,
    /// Consumer: the event index stored before the producer index is loaded again. Full; pairs with the peer's
    /// [`Fence::PublishThenLook`], see there.
    /// Loom: the same; without it `the_backend_sleeps_forever_without_the_sleepers_fence`, `the_frontend_..`; without
    /// the second look itself `the_backend_sleeps_forever_without_the_second_look`, `the_frontend_..`.
    ArmThenLook,
}

/// Executes a fence.
#[inline]
pub(crate) fn fence(which: Fence) {
    #[cfg(loom)]
    if omitted::is(which) {
        return;
    }
    raw_fence(match which {
        Fence::Publish => Ordering::Release,
        Fence::Observe => Ordering::Acquire,
        Fence::PublishThenLook | Fence::ArmThenLook => Ordering::SeqCst,
    });
}

#[cfg(loom)]
pub use omitted::without;

/// Models that can fail: a ring with one of its fences left out.
#[cfg(loom)]
mod omitted {
    use super::Fence;
    use core::cell::Cell;

    std::thread_local! {
        // Loom runs all threads of a model on the thread that started it.
        static OMITTED: Cell<Option<Fence>> = const { Cell::new(None) };
    }

    /// Runs `model` with every fence but `fence`.
    pub fn without(fence: Fence, model: impl FnOnce()) {
        OMITTED.set(Some(fence));
        model();
        OMITTED.set(None);
    }

    pub(super) fn is(fence: Fence) -> bool {
        OMITTED.get() == Some(fence)
    }
}
