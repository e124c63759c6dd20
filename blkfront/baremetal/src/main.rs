//! The image: boots, does what its command line says, tells the outcome on the console, and ends.
//!
//! The last line on the console is `@@ 0 STATUS`: 0 if all went well, else 1. A panic tells its message and ends the guest as
//! crashed.
#![no_std]
#![no_main]

mod entry;
mod heap;
mod memory;

use core::{fmt::Write as _, panic::PanicInfo};

use xen_platform::bare::{self, Area, BootError, Console, Reason, Reserved, Start, World};

/// Pages to lend: rings, descriptors and buffers.
static POOL: Area<4096> = Area::new();
/// References for these and the tool stack's.
static GRANT_TABLE: Area<9> = Area::new();
static SHARED_INFO: Area<1> = Area::new();

/// Everything, once there are a stack and a heap.
fn main() -> ! {
    let Some((start, mut console)) = entry::start().and_then(|start| Some((start, Console::new(&start)?)))
    else {
        // There is nobody to tell.
        bare::shut_down(Reason::Crash)
    };
    let line = start.command_line();
    let done = match world(&start) {
        Ok(world) => blkfront_bare::run(&world, &line, &mut console),
        Err(error) => {
            // A console never fails.
            let _ = writeln!(console, "cannot boot: {error}");
            false
        }
    };
    let _ = writeln!(console, "@@ 0 {}", i32::from(!done));
    console.flush();
    bare::shut_down(Reason::PowerOff)
}

fn world(start: &Start) -> Result<World, BootError> {
    let pages = |what, pages: Option<_>| pages.ok_or(BootError::Pages(what));
    let reserved = Reserved {
        shared_info: pages("shared page", SHARED_INFO.take())?,
        grant_table: pages("grant table", GRANT_TABLE.take())?,
        pool: pages("pool", POOL.take())?,
    };
    World::new(start, reserved)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    if let Some(mut console) = entry::start().and_then(|start| Console::new(&start)) {
        let _ = writeln!(console, "\n{info}");
        console.flush();
    }
    bare::shut_down(Reason::Crash)
}
