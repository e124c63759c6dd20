//! The limits in force, of every disk that is there and every group that is configured; to be looked at and changed while guests work.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use super::store::DeviceId;
use crate::{
    config::{Config, DiskConfig},
    limit::{DiskThrottle, Rates, Throttle},
};

/// Why limits are not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ThrottleError {
    /// No such disk is there.
    #[error("there is no disk {0}")]
    NoDisk(DeviceId),
    /// The configuration has no such group.
    #[error("there is no group {0}: groups are configured in sections [groups.NAME]")]
    NoGroup(String),
    /// A limit is out of its range.
    #[error("{key}: {text}")]
    Value {
        /// The limit.
        key: &'static str,
        /// What is wrong with it.
        text: String,
    },
}

/// All limits in force.
pub struct Throttles {
    groups: BTreeMap<String, Arc<Throttle>>,
    disks: Mutex<HashMap<DeviceId, Weak<Throttle>>>,
    /// The time by which requests are let pass.
    clock: Box<dyn Fn() -> Duration + Send + Sync>,
}

impl Throttles {
    /// The configured groups, and no disk yet. `clock` is that of the world in which the workers are.
    pub fn new(config: &Config, clock: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        let group = |(name, rates): (&String, &Rates)| (name.clone(), Arc::new(Throttle::new(rates)));
        let groups = config.groups.iter().map(group).collect();
        Self { groups, disks: Mutex::default(), clock: Box::new(clock) }
    }

    /// The limits of a disk with these settings, to be kept for as long as it is there.
    pub fn adopt(&self, disk: &DeviceId, settings: &DiskConfig) -> DiskThrottle {
        let group = settings.group.as_ref().and_then(|name| self.groups.get(name));
        let throttle = DiskThrottle::new(&settings.limit.unwrap_or_default(), group);
        let mut disks = self.disks();
        disks.retain(|_, throttle| throttle.strong_count() > 0);
        disks.insert(disk.clone(), Arc::downgrade(throttle.own()));
        throttle
    }

    /// The limits of a disk, without those of its group.
    pub fn of_disk(&self, disk: &DeviceId) -> Result<Rates, ThrottleError> {
        self.disk(disk).map(|throttle| throttle.rates())
    }

    /// The limits of a group.
    pub fn of_group(&self, name: &str) -> Result<Rates, ThrottleError> {
        self.group(name).map(|throttle| throttle.rates())
    }

    /// The groups there are.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.groups.keys().map(String::as_str)
    }

    /// Puts other limits in force for a disk, in place of all that it had: within a tenth of a second, until the disk is gone. Errors: no
    /// such disk; a limit out of its range, and nothing is changed.
    pub fn set_disk(&self, disk: &DeviceId, rates: &Rates) -> Result<(), ThrottleError> {
        self.set(&*self.disk(disk)?, rates)
    }

    /// The same for a group, until the daemon ends.
    pub fn set_group(&self, name: &str, rates: &Rates) -> Result<(), ThrottleError> {
        self.set(self.group(name)?, rates)
    }

    fn set(&self, throttle: &Throttle, rates: &Rates) -> Result<(), ThrottleError> {
        rates.check().map_err(|(key, text)| ThrottleError::Value { key, text })?;
        throttle.set(rates, (self.clock)());
        Ok(())
    }

    fn disk(&self, disk: &DeviceId) -> Result<Arc<Throttle>, ThrottleError> {
        let throttle = self.disks().get(disk).and_then(Weak::upgrade);
        throttle.ok_or_else(|| ThrottleError::NoDisk(disk.clone()))
    }

    fn group(&self, name: &str) -> Result<&Arc<Throttle>, ThrottleError> {
        self.groups.get(name).ok_or_else(|| ThrottleError::NoGroup(name.to_owned()))
    }

    fn disks(&self) -> MutexGuard<'_, HashMap<DeviceId, Weak<Throttle>>> {
        self.disks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Throttles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttles").field("groups", &self.groups).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn id(device: &str) -> DeviceId {
        DeviceId { kind: "vbd".into(), domain: "1".into(), device: device.into() }
    }

    #[test]
    fn limits_come_from_the_configuration_and_are_changed_by_name() {
        let text = "[groups.gold]\niops = 1000\n[disk]\nlimit = { bytes = \"1M\" }\n[disks.\"*/51712\"]\ngroup = \"gold\"\n";
        let config = Config::parse(text, Path::new("c")).unwrap();
        let throttles = Throttles::new(&config, || Duration::from_secs(7));
        let disk = throttles.adopt(&id("51712"), &config.disk(1, "51712", None));
        let rates = throttles.of_disk(&id("51712")).unwrap();
        assert_eq!((rates.bytes, rates.iops, rates.burst_ms), (Some(1 << 20), None, Some(100)));
        assert_eq!(throttles.of_group("gold").unwrap().iops, Some(1000));
        assert_eq!(throttles.groups().collect::<Vec<_>>(), ["gold"]);

        let faster = Rates { iops: Some(5), ..Rates::default() };
        throttles.set_disk(&id("51712"), &faster).unwrap();
        throttles.set_group("gold", &Rates::default()).unwrap();
        assert_eq!((disk.own().rates().iops, disk.own().rates().bytes), (Some(5), None));
        assert_eq!(throttles.of_group("gold"), Ok(Rates::default()));

        let none = Rates { iops: Some(0), ..faster };
        assert_eq!(
            throttles.set_group("gold", &none).unwrap_err().to_string(),
            "iops: 0 would let nothing pass; leave it out for no limit"
        );
        let unknown = throttles.set_group("lead", &faster).unwrap_err();
        assert_eq!(unknown, ThrottleError::NoGroup("lead".into()));
        assert_eq!(throttles.set_disk(&id("1"), &faster), Err(ThrottleError::NoDisk(id("1"))));
        drop(disk);
        assert_eq!(throttles.of_disk(&id("51712")), Err(ThrottleError::NoDisk(id("51712"))));
    }
}
