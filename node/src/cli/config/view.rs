//! How the command line shows a configuration.

use serde::Serialize;
use skep_config::Setting;

use crate::cli::output::Row;

#[derive(Serialize)]
pub(super) struct Value {
    key: String,
    value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
}

impl Value {
    pub(super) fn of(setting: Setting, with_origin: bool) -> Self {
        let origin = with_origin.then(|| setting.origin.to_string());
        Self { key: setting.key, value: setting.value, origin }
    }
}

impl Row for Value {
    const COLUMNS: &'static [&'static str] = &["key", "value", "origin"];
    fn cells(&self) -> Vec<String> {
        vec![self.key.clone(), self.value.clone(), self.origin.clone().unwrap_or_default()]
    }
}
