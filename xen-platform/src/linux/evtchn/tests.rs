//! The handle over a socket that plays the device: what is written there is what the kernel would let us read.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
};

use super::*;

fn events() -> (Events, UnixStream) {
    let (node, kernel) = UnixStream::pair().unwrap();
    node.set_nonblocking(true).unwrap();
    (
        Events { node: node.into(), bound: vec![Port(3), Port(9)], pending: VecDeque::new(), drained: false },
        kernel,
    )
}

fn pend(kernel: &mut UnixStream, ports: &[u32]) {
    let bytes: Vec<u8> = ports.iter().flat_map(|port| port.to_ne_bytes()).collect();
    kernel.write_all(&bytes).unwrap();
}

#[test]
fn ports_are_taken_in_the_kernels_order() {
    let (mut events, mut kernel) = events();
    assert_eq!(events.take_pending(), None);
    pend(&mut kernel, &[9, 3]);
    assert_eq!(
        [events.take_pending(), events.take_pending(), events.take_pending()],
        [Some(Port(9)), Some(Port(3)), None]
    );
}

#[test]
fn unmasking_writes_the_port_back() {
    let (mut events, mut kernel) = events();
    events.unmask(Port(0x0102_0304)).unwrap();
    let mut word = [0; 4];
    kernel.read_exact(&mut word).unwrap();
    assert_eq!(u32::from_ne_bytes(word), 0x0102_0304);
}

#[test]
fn waiting_ends_with_an_event_or_in_time() {
    let (mut events, mut kernel) = events();
    assert_eq!(events.wait(Some(Duration::from_millis(1))), Ok(false));
    pend(&mut kernel, &[3]);
    assert_eq!(events.wait(None), Ok(true));
    // What was read while waiting is not lost, and is not waited for again.
    assert_eq!(events.wait(None), Ok(true));
    assert_eq!(events.take_pending(), Some(Port(3)));
}

#[test]
fn what_the_kernel_refuses_is_an_error() {
    let (mut events, _kernel) = events();
    assert_eq!(events.notify(Port(3)), Err(system(Errno::ENOTTY)));
    assert_eq!(events.unbind(Port(3)), Err(system(Errno::ENOTTY)));
    assert_eq!(of_port(Errno::ENOTCONN, Port(7)), EventError::NotBound(Port(7)));
    assert_eq!(events.bind(DomId(5), Err(Errno::EINVAL)), Err(EventError::NotUnbound));
    assert_eq!(events.bind(DomId(5), Err(Errno::ESRCH)), Err(EventError::NoDomain(DomId(5))));
    assert_eq!(events.bound, [Port(3), Port(9)]);
}

#[test]
fn what_another_read_is_taken_without_reading_again() {
    let (mut events, mut kernel) = events();
    pend(&mut kernel, &[3]);
    assert!(events.is_stream());
    events.feed(&[9u32.to_ne_bytes(), 3u32.to_ne_bytes()].concat());
    assert_eq!(
        [events.take_pending(), events.take_pending(), events.take_pending()],
        [Some(Port(9)), Some(Port(3)), None]
    );
    // What is still in the device is read as ever by whoever asks again.
    assert_eq!(events.take_pending(), Some(Port(3)));
}
