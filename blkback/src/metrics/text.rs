//! What is told, in the text format of OpenMetrics 1.0.

use std::{collections::BTreeMap, fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, LabelSetEncoder, MetricEncoder, NoLabelSet,
        text::encode,
    },
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

use super::{Label, Roll};
use crate::stats::{Counter, QueueStats, Reading, Stages, WorkerStats};

/// All counters as they are now. Errors: none that can happen where there is memory.
pub fn text(roll: &Roll) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    let now = Now { queues: roll.queues(), workers: roll.workers().to_vec() };
    registry.register_collector(Box::new(now));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// What was there when somebody asked.
#[derive(Debug)]
struct Now {
    queues: BTreeMap<Label, Arc<QueueStats>>,
    workers: Vec<Arc<WorkerStats>>,
}

/// A queue's labels, and one more where there are several figures of a kind.
struct Labels<'a>(&'a Label, Option<(&'static str, &'static str)>);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let Self(Label { domain, device, queue }, more) = self;
        let queue = queue.to_string();
        let own = [("domain", domain.as_str()), ("device", device), ("queue", &queue)];
        for label in own.into_iter().chain(*more) {
            prometheus_client::encoding::EncodeLabel::encode(&label, encoder.encode_label())?;
        }
        Ok(())
    }
}

/// A family's name without its prefix, what it is, and its unit.
type Family = (&'static str, &'static str, Option<Unit>);
/// Figures of one queue, each with the value of the label that tells it from the others.
type Figures<'a> = Vec<(&'static str, &'a Counter)>;

impl Collector for Now {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let out = &mut encoder;
        self.counts(out, ("requests", "Requests taken out of the ring", None), "", |queue| {
            vec![("", &queue.requests)]
        })?;
        self.counts(
            out,
            ("operations", "Requests that went well; barriers are writes", None),
            "operation",
            |QueueStats { done, .. }| {
                vec![
                    ("read", &done.reads),
                    ("write", &done.writes),
                    ("flush", &done.flushes),
                    ("discard", &done.discards),
                ]
            },
        )?;
        let volume =
            ("transferred", "What requests that went well have moved, or discarded", Some(Unit::Bytes));
        self.counts(out, volume, "operation", |queue| {
            vec![
                ("read", &queue.bytes_read),
                ("write", &queue.bytes_written),
                ("discard", &queue.bytes_discarded),
            ]
        })?;
        let errors = ("errors", "Requests that failed, by what was in the way", None);
        self.counts(out, errors, "cause", |QueueStats { failed, .. }| {
            vec![
                ("refused", &failed.refused),
                ("grants", &failed.grants),
                ("memory", &failed.memory),
                ("storage", &failed.storage),
            ]
        })?;
        self.gauges(out, "in_flight", "Requests taken and not answered", |queue| &queue.in_flight)?;
        self.counts(out, ("held", "Requests that had to wait for limits", None), "", |queue| {
            vec![("", &queue.held)]
        })?;
        self.counts(out, ("events", "Events received from the guest", None), "", |queue| {
            vec![("", &queue.events)]
        })?;
        self.notifications(out)?;
        let grants = ("grants", "Pages by which data reached the guest, by the way it took", None);
        self.counts(out, grants, "way", |QueueStats { grants, .. }| {
            vec![("copied", &grants.copied), ("mapped", &grants.mapped), ("persistent", &grants.persistent)]
        })?;
        self.gauges(out, "persistent_pages", "Pages kept mapped between requests", |queue| {
            &queue.persistent_pages
        })?;
        self.ring_full(out)?;
        self.stages(out)?;
        self.workers(out)
    }
}

impl Now {
    /// One family of counters of queues; no label more than theirs if `label` is empty.
    fn counts(
        &self,
        out: &mut DescriptorEncoder<'_>,
        (name, help, unit): Family,
        label: &'static str,
        figures: impl Fn(&QueueStats) -> Figures<'_>,
    ) -> fmt::Result {
        let name = format!("blkback_{name}");
        let mut family = out.encode_descriptor(&name, help, unit.as_ref(), MetricType::Counter)?;
        for (queue, stats) in &self.queues {
            for (value, counter) in figures(stats) {
                let more = (!label.is_empty()).then_some((label, value));
                ConstCounter::new(counter.get()).encode(family.encode_family(&Labels(queue, more))?)?;
            }
        }
        Ok(())
    }

    fn gauges(
        &self,
        out: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        figure: impl Fn(&QueueStats) -> &Counter,
    ) -> fmt::Result {
        let name = format!("blkback_{name}");
        let mut family = out.encode_descriptor(&name, help, None, MetricType::Gauge)?;
        for (queue, stats) in &self.queues {
            let value = i64::try_from(figure(stats).get()).unwrap_or(i64::MAX);
            ConstGauge::new(value).encode(family.encode_family(&Labels(queue, None))?)?;
        }
        Ok(())
    }

    fn notifications(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Batches of answers, by whether the guest asked to be notified of them";
        let name = "blkback_notifications";
        let mut family = out.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (queue, stats) in &self.queues {
            // In this order: there is never a notification without its batch.
            let sent = stats.notifications.get();
            let suppressed = stats.batches.get().saturating_sub(sent);
            for (value, count) in [("sent", sent), ("suppressed", suppressed)] {
                let labels = Labels(queue, Some(("outcome", value)));
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn ring_full(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Time in which the guest had no room for another request";
        let (name, unit) = ("blkback_ring_full", Unit::Seconds);
        let mut family = out.encode_descriptor(name, help, Some(&unit), MetricType::Counter)?;
        for (queue, stats) in &self.queues {
            let seconds = stats.ring_full.get() as f64 / 1e9;
            ConstCounter::new(seconds).encode(family.encode_family(&Labels(queue, None))?)?;
        }
        Ok(())
    }

    fn stages(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "How long requests were in each stage of their way";
        let (name, unit) = ("blkback_stage", Unit::Seconds);
        let mut family = out.encode_descriptor(name, help, Some(&unit), MetricType::Histogram)?;
        for (queue, stats) in &self.queues {
            let Stages { ring, data, storage, respond } = &stats.stages;
            for (value, histogram) in
                [("ring", ring), ("data", data), ("storage", storage), ("respond", respond)]
            {
                let labels = Labels(queue, Some(("stage", value)));
                histogram_of(&histogram.read(), family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn workers(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Figure = fn(&WorkerStats) -> &Counter;
        let families: [(&str, &str, Figure); 3] = [
            ("blkback_worker_batches", "Turns of a thread that found work", |worker| &worker.batches),
            ("blkback_worker_sleeps", "Times that a thread went to sleep", |worker| &worker.sleeps),
            (
                "blkback_worker_storage_calls",
                "System calls to start or await operations of disks",
                |worker| &worker.storage_calls,
            ),
        ];
        for (name, help, figure) in families {
            let mut family = out.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (number, worker) in self.workers.iter().enumerate() {
                let labels = [("worker", number.to_string())];
                ConstCounter::new(figure(worker).get()).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

fn histogram_of(reading: &Reading, mut encoder: MetricEncoder<'_>) -> fmt::Result {
    encoder.encode_histogram::<NoLabelSet>(reading.seconds(), reading.count(), &reading.buckets(), None)
}
