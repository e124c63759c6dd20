//! Which system calls the daemon can make: seccomp.
//!
//! The list is what the program uses once its world and XenStore are open, found by tracing the tests; ADR-0011 says what happens on
//! a call that is not in it, and why.

use std::{collections::BTreeMap, io};

use nix::libc::{self, c_long};
use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule, apply_filter, apply_filter_all_threads,
};
use xen_platform::linux::BACKEND_IOCTLS;

/// Calls that are harmless whatever their arguments, or that other means confine: what can be opened is landlock's.
const ANY: &[c_long] = &[
    // Memory. That none of it becomes executable is below.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // Threads.
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    // Time and chance.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_getrandom,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    // Files: images by their descriptors, logs by path.
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fallocate,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_pread64,
    libc::SYS_preadv2,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_statx,
    libc::SYS_unlinkat,
    libc::SYS_write,
    libc::SYS_writev,
    // Waiting, and the io_uring, until there is one for each worker.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_setup,
    libc::SYS_ppoll,
    // XenStore, the keeper, and in a simulated world the broker: over what is connected.
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    // Administrators and metrics, on sockets that were made before.
    libc::SYS_accept4,
    libc::SYS_getsockopt,
];

/// What later architectures have under another name only.
#[cfg(target_arch = "x86_64")]
const OLD: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_epoll_wait,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_poll,
    libc::SYS_rename,
    libc::SYS_stat,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[c_long] = &[];

/// What librados and librbd do beside all that, with sockets that [`allowed`] lets them have.
const NETWORK: &[c_long] = &[
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_pipe2,
    libc::SYS_setsockopt,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_uname,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_create,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_pipe,
];

/// `PR_SET_VMA`: names for memory, of which the C library makes use.
const PR_SET_VMA: u64 = 0x5356_4D41;
/// `SECCOMP_SET_MODE_FILTER`.
const SET_FILTER: u64 = 1;
/// `BLKDISCARD` and `BLKSECDISCARD`.
const DISCARDS: [u64; 2] = [0x1277, 0x127D];
/// `IORING_REGISTER_`: `FILES`, `FILES_UPDATE`, `RESTRICTIONS`, `ENABLE_RINGS`, `FILES2`.
const REGISTERS: [u64; 5] = [2, 6, 11, 12, 13];

/// What becomes of a call that is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It fails, with `EPERM`.
    Fail,
    /// The process dies, by SIGSYS.
    Die,
}

/// Compiled filters. Making them takes longer than applying them.
#[derive(Clone, Debug)]
pub struct Filters {
    fall_back: BpfProgram,
    allowed: BpfProgram,
    seal: BpfProgram,
}

impl Filters {
    /// For this process, whose number is in them. With a `network`, it may connect to others.
    pub fn compile(refusal: Refusal, network: bool) -> io::Result<Self> {
        let refused = || match refusal {
            Refusal::Fail => SeccompAction::Errno(libc::EPERM.cast_unsigned()),
            Refusal::Die => SeccompAction::KillProcess,
        };
        // The arguments of `clone3` cannot be seen by a filter. Without it, the C library uses `clone`.
        let fall_back = [(libc::SYS_clone3, Vec::new())].into();
        let enosys = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
        let eperm = SeccompAction::Errno(libc::EPERM.cast_unsigned());
        let seal = [(libc::SYS_io_uring_setup, Vec::new())].into();
        Ok(Self {
            fall_back: program(fall_back, SeccompAction::Allow, enosys).map_err(failed)?,
            allowed: program(allowed(network).map_err(failed)?, refused(), SeccompAction::Allow)
                .map_err(failed)?,
            seal: program(seal, SeccompAction::Allow, eperm).map_err(failed)?,
        })
    }

    /// From now on this process makes no call that is not allowed. It must not be able to gain rights already.
    pub(super) fn apply(&self) -> io::Result<()> {
        apply_filter_all_threads(&self.fall_back).map_err(failed)?;
        apply_filter_all_threads(&self.allowed).map_err(failed)
    }

    /// From now on this thread, and those it starts, set up no io_uring: what such a one does is seen by no filter.
    pub fn seal(&self) -> io::Result<()> {
        apply_filter(&self.seal).map_err(failed)
    }
}

fn program(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    listed: SeccompAction,
) -> Result<BpfProgram, Error> {
    let arch = std::env::consts::ARCH.try_into().map_err(Error::Backend)?;
    let filter = SeccompFilter::new(rules, otherwise, listed, arch).map_err(Error::Backend)?;
    filter.try_into().map_err(Error::Backend)
}

fn failed(error: Error) -> io::Error {
    io::Error::other(format!("seccomp: {error}"))
}

/// Every call that is allowed, with what its arguments must be.
fn allowed(network: bool) -> Result<BTreeMap<i64, Vec<SeccompRule>>, Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let of_network = if network { NETWORK } else { &[] };
    for call in ANY.iter().chain(OLD).chain(of_network) {
        rules.insert(*call, Vec::new());
    }
    let own = u64::from(std::process::id());
    let prot_exec = Op::MaskedEq(u64::from(libc::PROT_EXEC.cast_unsigned()));
    let thread = u64::from(libc::CLONE_THREAD.cast_unsigned());
    let unix = u64::from(libc::AF_UNIX.cast_unsigned());
    let mut when = |call: c_long, argument: u8, op: Op, value: u64| {
        // A number is an `int` in all of these, and the kernel looks at no more of it.
        let condition = SeccompCondition::new(argument, Len::Dword, op, value)?;
        rules.entry(call).or_default().push(SeccompRule::new(vec![condition])?);
        Ok::<_, seccompiler::BackendError>(())
    };
    let mut all = || {
        when(libc::SYS_mmap, 2, prot_exec.clone(), 0)?;
        when(libc::SYS_mprotect, 2, prot_exec.clone(), 0)?;
        when(libc::SYS_clone, 0, Op::MaskedEq(thread), thread)?;
        // Its own death, at a step where a test wants it.
        when(libc::SYS_tgkill, 0, Op::Eq, own)?;
        when(libc::SYS_socketpair, 0, Op::Eq, unix)?;
        when(libc::SYS_seccomp, 0, Op::Eq, SET_FILTER)?;
        for name in [libc::PR_SET_NAME, libc::PR_SET_NO_NEW_PRIVS] {
            when(libc::SYS_prctl, 0, Op::Eq, u64::from(name.cast_unsigned()))?;
        }
        when(libc::SYS_prctl, 0, Op::Eq, PR_SET_VMA)?;
        for ioctl in DISCARDS.into_iter().chain(BACKEND_IOCTLS.iter().copied()) {
            when(libc::SYS_ioctl, 1, Op::Eq, ioctl)?;
        }
        for register in REGISTERS {
            when(libc::SYS_io_uring_register, 1, Op::Eq, register)?;
        }
        Ok(())
    };
    all().map_err(Error::Backend)?;
    if network {
        rules.insert(libc::SYS_socket, streams().map_err(Error::Backend)?);
    }
    Ok(rules)
}

/// Arguments of `socket` for TCP, of both versions of IP.
fn streams() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    // What is beside the kind are flags.
    let stream = Op::MaskedEq(0xF);
    let of = |family: i32| {
        let family = SeccompCondition::new(0, Len::Dword, Op::Eq, u64::from(family.cast_unsigned()))?;
        let kind = libc::SOCK_STREAM.cast_unsigned();
        SeccompRule::new(vec![family, SeccompCondition::new(1, Len::Dword, stream.clone(), u64::from(kind))?])
    };
    [libc::AF_INET, libc::AF_INET6].into_iter().map(of).collect()
}
