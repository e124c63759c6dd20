//! Stand-ins until blkif-proto has landed (minutes).
#![expect(missing_docs, reason = "gone in the next commit")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abi;
impl Abi {
    pub const NATIVE: Abi = Abi;
    pub fn as_protocol(self) -> &'static str {
        "x86_64-abi"
    }
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("?")]
pub struct State;
#[derive(Debug, thiserror::Error)]
#[error("?")]
pub struct RecordError;
#[derive(Clone, Debug)]
pub struct BackendFeatures;
