//! Questions of administrators, on their way to the devices that can answer them.

use std::{sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::sleep};

use super::{
    device::Context,
    inbox::{DeviceHandle, Message},
    store::DeviceId,
    throttles::ThrottleError,
    trace::trace,
};
use crate::ctl::{
    desk::Ask,
    protocol::{Answer, Command, DiskName, Failure, FailureKind, TRACED},
};

/// Passes a question on: to the one device it is about, or to all of them.
pub(super) fn pass_on<'a>(
    ask: Ask,
    context: &Arc<Context>,
    devices: impl Iterator<Item = (&'a DeviceId, &'a DeviceHandle)> + Clone,
) {
    let throttles = &context.throttles;
    match ask.command.disk() {
        None if let Command::Trace { requests, seconds, .. } = ask.command => {
            tokio::spawn(answer_trace(ask, Arc::clone(context), None, requests, seconds));
        }
        Some(name) => {
            // Of several kinds with the same number only one can be the guest's.
            match devices.clone().find(|(id, handle)| is_named(id, handle, name)) {
                Some((id, handle)) => match ask.command {
                    Command::Trace { requests, seconds, .. } => {
                        let device = Some(id.short());
                        tokio::spawn(answer_trace(ask, Arc::clone(context), device, requests, seconds));
                    }
                    _ => handle.send(Message::Ask(ask)),
                },
                None => {
                    let text = format!("there is no disk {name}");
                    ask.answer(Err(Failure::new(FailureKind::NoSuchDisk, text)));
                }
            }
        }
        None if let Command::LimitGroup { group, limits } = &ask.command => {
            let outcome = limits.map_or(Ok(()), |limits| throttles.set_group(group, &limits));
            let outcome = outcome.and_then(|()| throttles.of_group(group));
            ask.answer(outcome.map(Answer::Limits).map_err(Into::into));
        }
        None => {
            let parts = devices.map(|(_, handle)| part(&ask.command, handle)).collect();
            tokio::spawn(gather(ask, parts));
        }
    }
}

impl From<ThrottleError> for Failure {
    fn from(error: ThrottleError) -> Self {
        let kind = match &error {
            ThrottleError::NoDisk(_) => FailureKind::NotNow,
            ThrottleError::NoGroup(_) => FailureKind::NoSuchDisk,
            ThrottleError::Value { .. } => FailureKind::Malformed,
        };
        Failure::new(kind, error.to_string())
    }
}

async fn answer_trace(
    ask: Ask,
    context: Arc<Context>,
    device: Option<String>,
    requests: usize,
    seconds: u64,
) {
    if !(1..=TRACED).contains(&requests) || !(1..=60).contains(&seconds) {
        let text = format!("a trace has 1 to {TRACED} requests and takes 1 to 60 s");
        return ask.answer(Err(Failure::new(FailureKind::Malformed, text)));
    }
    let over = sleep(Duration::from_secs(seconds));
    let trace = trace(&context.workers, device.as_deref(), requests, over).await;
    let mut text = Vec::new();
    let written = trace.write(&mut text).and_then(|()| Ok(serde_json::from_slice(&text)?));
    ask.answer(
        written.map(Answer::Trace).map_err(|error| Failure::new(FailureKind::Failed, error.to_string())),
    );
}

fn is_named(id: &DeviceId, handle: &DeviceHandle, name: &DiskName) -> bool {
    id.domain == name.domain.to_string()
        && (id.device == name.disk || handle.name().is_some_and(|own| own == name.disk))
}

type Part = oneshot::Receiver<Result<Answer, Failure>>;

fn part(command: &Command, handle: &DeviceHandle) -> Part {
    let (reply, answer) = oneshot::channel();
    handle.send(Message::Ask(Ask { command: command.clone(), reply }));
    answer
}

/// Makes one answer of all devices' answers. One that ends meanwhile has none.
async fn gather(ask: Ask, parts: Vec<Part>) {
    let (mut disks, mut stats) = (Vec::new(), Vec::new());
    for part in parts {
        match part.await {
            Ok(Ok(Answer::Disks(some))) => disks.extend(some),
            Ok(Ok(Answer::Stats(some))) => stats.extend(some),
            _ => {}
        }
    }
    disks.sort_by_key(|disk| (disk.domain, disk.device));
    stats.sort_by_key(|disk| (disk.domain, disk.device));
    let answer = if ask.command == Command::List { Answer::Disks(disks) } else { Answer::Stats(stats) };
    ask.answer(Ok(answer));
}
