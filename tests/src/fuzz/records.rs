//! XenStore's nodes as any end may write them.

use std::{cell::RefCell, collections::BTreeMap, fmt::Debug};

use arbitrary::Arbitrary;
use blkif_proto::{
    Agreement, RecordError,
    keys::{self, BackendDisk, BackendFeatures, FrontendRecord, ToolstackBackend, ToolstackFrontend},
};

/// Every key that some record has; queues' keys are made of these.
const KEYS: [&str; 49] = [
    keys::STATE,
    keys::MAX_RING_PAGE_ORDER,
    keys::MAX_RING_PAGES,
    keys::MULTI_QUEUE_MAX_QUEUES,
    keys::FEATURE_MAX_INDIRECT_SEGMENTS,
    keys::FEATURE_PERSISTENT,
    keys::FEATURE_BARRIER,
    keys::FEATURE_FLUSH_CACHE,
    keys::FEATURE_DISCARD,
    keys::DISCARD_GRANULARITY,
    keys::DISCARD_ALIGNMENT,
    keys::DISCARD_SECURE,
    keys::SECTORS,
    keys::SECTOR_SIZE,
    keys::PHYSICAL_SECTOR_SIZE,
    keys::INFO,
    keys::MAX_REQUESTS,
    keys::MAX_REQUEST_SEGMENTS,
    keys::MAX_REQUEST_SIZE,
    keys::PROTOCOL,
    keys::RING_REF,
    keys::RING_PAGE_ORDER,
    keys::NUM_RING_PAGES,
    keys::RING_PAGES,
    keys::EVENT_CHANNEL,
    keys::MULTI_QUEUE_NUM_QUEUES,
    keys::FRONTEND,
    keys::FRONTEND_ID,
    keys::ONLINE,
    keys::PARAMS,
    keys::MODE,
    keys::TYPE,
    keys::DEV,
    keys::REMOVABLE,
    keys::BOOTABLE,
    keys::DISCARD_ENABLE,
    keys::DIRECT_IO_SAFE,
    keys::SCRIPT,
    keys::DEVICE_TYPE,
    keys::HOTPLUG_STATUS,
    keys::HOTPLUG_ERROR,
    keys::PHYSICAL_DEVICE,
    keys::PHYSICAL_DEVICE_PATH,
    keys::BACKEND,
    keys::BACKEND_ID,
    keys::VIRTUAL_DEVICE,
    keys::VIRTUAL_DEVICE_EXT,
    keys::TRUSTED,
    keys::ERROR,
];

#[derive(Debug, Arbitrary)]
struct Node<'a> {
    /// In a queue's directory.
    queue: Option<u8>,
    key: u8,
    /// `ring-ref0` and the like.
    number: Option<u8>,
    value: Value<'a>,
}

#[derive(Debug, Arbitrary)]
enum Value<'a> {
    Number(u64),
    Small(u8),
    Word(u8),
    Bytes(&'a [u8]),
}

const WORDS: [&str; 26] = [
    "512",
    "2048",
    "4096",
    "1048576",
    "255",
    "32",
    "phy",
    "r",
    "/images/disk.img",
    "/local/domain/0/backend/vbd/1/51712",
    "/local/domain/1/device/vbd/51712",
    "51712",
    "x86_64-abi",
    "x86_32-abi",
    "arm-abi",
    "",
    "-1",
    "+1",
    " 1",
    "0x10",
    "18446744073709551616",
    "disk",
    "cdrom",
    "w!",
    "aio:/images/../etc/shadow",
    "connected",
];

impl Value<'_> {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Value::Number(number) => number.to_string().into(),
            Value::Small(number) => number.to_string().into(),
            Value::Word(word) => WORDS[usize::from(*word) % WORDS.len()].into(),
            Value::Bytes(bytes) => bytes.to_vec(),
        }
    }
}

/// A record is read key by key, no key twice, and what is written of it reads as the same.
pub fn records(data: &[u8]) {
    let Some(nodes) = super::script::<Vec<Node<'_>>>(data) else { return };
    let mut tree = BTreeMap::new();
    for node in nodes {
        let key = KEYS[usize::from(node.key) % KEYS.len()];
        let number = node.number.map(|number| (number % 34).to_string()).unwrap_or_default();
        let key = format!("{key}{number}");
        let name = node
            .queue
            .map_or(key.clone(), |queue| format!("{}/{key}", keys::queue_dir(usize::from(queue % 6))));
        tree.insert(name, node.value.bytes());
    }
    let features = round(&tree, |look| BackendFeatures::parse(look), |it, put| it.emit(put));
    round(&tree, |look| BackendDisk::parse(look), |it, put| it.emit(put));
    round(&tree, |look| ToolstackBackend::parse(look), |it, put| it.emit(put));
    round(&tree, |look| ToolstackFrontend::parse(look), |it, put| it.emit(put));
    let offered = features.unwrap_or(BackendFeatures::ORIGINAL);
    let record = round(&tree, |look| FrontendRecord::parse(look, &offered), |it, put| it.emit(put));
    if let Some(record) = record {
        assert!(!record.queues.is_empty() && record.queues.len() <= offered.max_queues.max(1) as usize);
        assert!(record.queues.iter().all(|queue| queue.ring_refs.len() == record.ring_pages()));
        assert!(record.ring_pages() <= offered.max_ring_pages as usize);
        let agreement = Agreement::between(&offered.capacity(), &record.capacity(), record.abi);
        assert!(agreement.queues as usize == record.queues.len() || agreement.queues <= offered.max_queues);
    }
    if let Ok(toolstack) = ToolstackBackend::parse(|key| tree.get(key)) {
        _ = toolstack.target();
    }
}

/// Reads a record, and what it writes once more.
fn round<T: Debug>(
    tree: &BTreeMap<String, Vec<u8>>,
    parse: impl Fn(&mut dyn FnMut(&str) -> Option<Vec<u8>>) -> Result<T, RecordError>,
    emit: impl Fn(&T, &mut dyn FnMut(&str, &str)),
) -> Option<T> {
    let asked = RefCell::new(Vec::new());
    let found = parse(&mut |key| {
        assert!(!asked.borrow().iter().any(|earlier| earlier == key), "{key} is read twice");
        asked.borrow_mut().push(key.to_owned());
        tree.get(key).cloned()
    });
    let record = match found {
        Ok(record) => record,
        Err(error) => {
            assert!(error.to_string().len() < 1000, "an error text as long as its value");
            return None;
        }
    };
    // Records need not be equal: what a backend offers it says in the words of every dialect.
    let written = written(&record, &emit);
    let back = parse(&mut |key| written.get(key).cloned());
    let again = back.as_ref().map(|back| self::written(back, &emit));
    assert_eq!(again.as_ref().ok(), Some(&written), "{back:?}, of {record:?}");
    Some(record)
}

fn written<T>(record: &T, emit: &impl Fn(&T, &mut dyn FnMut(&str, &str))) -> BTreeMap<String, Vec<u8>> {
    let mut nodes = BTreeMap::new();
    emit(record, &mut |key, value| _ = nodes.insert(key.to_owned(), value.as_bytes().to_vec()));
    nodes
}
