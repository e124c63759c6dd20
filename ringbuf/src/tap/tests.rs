use std::sync::Mutex;

use super::*;
use crate::{BackRing, FrontRing, Heap};

#[derive(Debug, Default)]
struct Ear(Mutex<Vec<String>>);

impl Ear {
    fn heard(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn hear(&self, text: String) {
        self.0.lock().unwrap().push(text);
    }
}

impl Tap for Ear {
    fn slot_read(&self, index: Index, bytes: &[u8]) {
        self.hear(format!("read {} {:?}", index.get(), bytes));
    }

    fn slot_written(&self, index: Index, bytes: &[u8]) {
        self.hear(format!("wrote {} {:?}", index.get(), bytes));
    }

    fn index_read(&self, field: Field, value: Index) {
        self.hear(format!("{field:?} is {}", value.get()));
    }

    fn index_written(&self, field: Field, value: Index) {
        self.hear(format!("{field:?} to {}", value.get()));
    }

    fn aside(&self, id: u64, bytes: &[u8]) {
        self.hear(format!("beside {id} {bytes:?}"));
    }

    fn failed(&self, id: u64, kind: &'static str, reason: &dyn Display) {
        self.hear(format!("{kind} failure of {id}: {reason}"));
    }

    fn came_to(&self, point: &'static str, id: u64) {
        self.hear(format!("{id} came to {point}"));
    }

    fn signalled(&self) {
        self.hear("signal".into());
    }
}

#[test]
fn a_backends_turn_is_told_in_order() {
    let memory = Heap::new(Layout::new(1, 8).unwrap());
    let mut front = FrontRing::init(memory.clone());
    front.push(&[1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    let _ = front.publish();
    let ear = Arc::new(Ear::default());
    let mut back = BackRing::attach(Tapped::new(memory, Some(ear.clone()))).unwrap();
    ear.heard();
    let mut entry = [0; 12];
    assert_eq!(back.available(), Ok(1));
    back.read(0, &mut entry).unwrap();
    back.consume(1).unwrap();
    back.respond(&[9, 9], 1).unwrap();
    let _ = back.publish();
    assert_eq!(
        ear.heard(),
        ["read 0 [1, 2, 3, 4, 5, 6, 7, 8]", "wrote 0 [9, 9]", "RspProd to 1", "RspEvent is 1"],
        "an entry ends where its slot does"
    );
    assert_eq!(back.available(), Ok(0));
    assert_eq!(ear.heard(), ["ReqProd is 1"]);
}

#[test]
fn a_look_without_a_copy_is_no_message() {
    let memory = Heap::new(Layout::new(1, 8).unwrap());
    let ear = Arc::new(Ear::default());
    let mut front = FrontRing::init(Tapped::new(memory.clone(), Some(ear.clone())));
    front.push(&[1]).unwrap();
    let _ = front.publish();
    let mut back = BackRing::attach(memory).unwrap();
    back.consume(1).unwrap();
    back.respond(&[2], 1).unwrap();
    let _ = back.publish();
    ear.heard();
    assert_eq!(front.peek(&mut []), Ok(true));
    assert_eq!(ear.heard(), ["RspProd is 1"]);
    assert_eq!(front.peek(&mut [0]), Ok(true));
    assert_eq!(ear.heard(), ["read 0 [2]"]);
}
