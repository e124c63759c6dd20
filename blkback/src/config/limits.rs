//! What the configuration says of limits.

use super::{Config, check::is_name};
use crate::limit::Rates;

impl Config {
    /// Errors: the key whose value is none, and what is wrong with it.
    pub(super) fn check_limits(&self) -> Result<(), (String, String)> {
        let disks = self.disks.iter().map(|(name, disk)| (format!("disks.{name:?}"), disk));
        for (table, disk) in disks.chain([("disk".to_owned(), &self.disk)]) {
            if let Some(Err((key, text))) = disk.limit.as_ref().map(Rates::check) {
                return Err((format!("{table}.limit.{key}"), text));
            }
            if let Some(group) = disk.group.as_ref().filter(|group| !self.groups.contains_key(*group)) {
                return Err((format!("{table}.group"), format!("there is no section [groups.{group}]")));
            }
        }
        for (name, rates) in &self.groups {
            if !is_name(name) {
                return Err((format!("groups.{name:?}"), "a name is letters, digits, - and _".into()));
            }
            rates.check().map_err(|(key, text)| (format!("groups.{name}.{key}"), text))?;
        }
        Ok(())
    }
}
