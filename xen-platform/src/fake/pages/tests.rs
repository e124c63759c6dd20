use std::sync::atomic::Ordering::Relaxed;

use super::*;

#[test]
fn superpages_change_no_contents_and_no_addresses() {
    let bytes = 2 * SUPERPAGE + PAGE_SIZE;
    let view = View::new(memfd("test", bytes as u64).unwrap(), bytes, Protection::ReadWrite).unwrap();
    let words = view.words32(0, bytes / 4);
    words.iter().zip(0..).for_each(|(word, number)| word.store(number, Relaxed));
    // The last one reaches past the end of the file.
    for (offset, bytes) in
        [(0, SUPERPAGE), (SUPERPAGE - PAGE_SIZE, 2 * PAGE_SIZE), (2 * SUPERPAGE, PAGE_SIZE), (usize::MAX, 1)]
    {
        view.back_by_superpages(offset, bytes);
    }
    assert!(words.iter().zip(0..).all(|(word, number)| word.load(Relaxed) == number));
    assert_eq!(view.mem().as_ptr().align_offset(SUPERPAGE), 0);
}

#[test]
fn a_room_takes_nothing_beyond_its_end() {
    let fd = memfd("test", 2 * PAGE_SIZE as u64).unwrap();
    let room = Room::new(2 * PAGE_SIZE).unwrap();
    let put = |at, bytes| room.put(at, bytes, Protection::Read, fd.as_fd(), 0);
    assert_eq!(put(PAGE_SIZE, PAGE_SIZE), Ok(()));
    assert_eq!(put(PAGE_SIZE, 2 * PAGE_SIZE), Err(Errno::EINVAL));
    assert_eq!(put(usize::MAX, 2), Err(Errno::EINVAL));
    assert_eq!(put(0, 0), Err(Errno::EINVAL));
}
