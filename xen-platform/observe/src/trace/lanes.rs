//! Places for requests that are under way at once: in each, one comes after the other.

use std::collections::BTreeMap;

use super::{End, Request};

/// Where each request is drawn: the number of its lane within its queue, in the order of `requests`.
pub(super) fn lanes(requests: &[&Request]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..requests.len()).collect();
    order.sort_by_key(|at| requests.get(*at).map(|request| request.begin()));
    // When the last request of each lane ends, by end, device and queue.
    let mut busy: BTreeMap<(bool, &str, u32), Vec<u64>> = BTreeMap::new();
    let mut lanes = vec![0; requests.len()];
    for at in order {
        let Some(request) = requests.get(at) else { continue };
        let name = &request.name;
        let busy = busy.entry((name.end == End::Backend, name.device.as_str(), name.queue)).or_default();
        let free = busy.iter().position(|end| *end <= request.begin()).unwrap_or(busy.len());
        match busy.get_mut(free) {
            Some(end) => *end = request.end(),
            None => busy.push(request.end()),
        }
        if let Some(lane) = lanes.get_mut(at) {
            *lane = free;
        }
    }
    lanes
}
