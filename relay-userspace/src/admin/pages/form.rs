//! Forms over configuration keys: filled from the file, compared with it, and edited back into it.

use super::sections::{self, Control, Section};
use crate::{
    admin::{
        apply::{ApplyError, Current, parse},
        guard::Fields,
        state::Web,
    },
    config::{
        Config,
        edit::{Change, edit},
        keys::{self, Effect, Kind, Value},
    },
};

/// A field as it is shown.
#[derive(Debug)]
pub(super) struct Field {
    /// The configuration's key; also the field's name and id.
    pub(super) name: String,
    pub(super) label: &'static str,
    pub(super) help: &'static str,
    pub(super) control: &'static Control,
    pub(super) restart: bool,
    /// What is in it.
    pub(super) typed: String,
    pub(super) error: Option<String>,
    /// What the file has.
    pub(super) in_file: Value,
    pub(super) kind: Kind,
}

impl Field {
    /// Whether a line of what is typed is this word; for boxes to tick.
    pub(super) fn has(&self, word: &str) -> bool {
        self.typed.lines().any(|line| line == word)
    }

    /// Whether it takes a row of its own.
    pub(super) fn is_wide(&self) -> bool {
        matches!(self.control, Control::Boxes(_))
    }

    /// The key as it is written in the file's documentation: without a network's position.
    pub(super) fn key(&self) -> String {
        self.name
            .split('.')
            .filter(|part| !part.bytes().all(|byte| byte.is_ascii_digit()))
            .collect::<Vec<_>>()
            .join(".")
    }

    /// Reads what was typed: a new value, or none when it is the file's. What cannot be read is noted at the field.
    pub(super) fn changed(&mut self) -> Option<Value> {
        match self.kind.read(&self.typed) {
            Ok(value) => (value != self.in_file).then_some(value),
            Err(error) => {
                self.error = Some(error);
                None
            }
        }
    }
}

/// A section's form.
#[derive(Debug)]
pub(super) struct Form {
    pub(super) section: &'static Section,
    pub(super) fields: Vec<Field>,
    /// Names the file's text that the form was made from.
    pub(super) version: String,
    /// What is wrong with no field in particular.
    pub(super) error: Option<String>,
}

impl Form {
    /// As the file has it. A file that was broken by hand is told about; the form then has nothing in it.
    pub(super) fn of_file(web: &Web, section: &'static Section, current: &Current) -> Self {
        let (config, error) = match parse(web, &current.text) {
            Ok(config) => (Some(config), None),
            Err(error) => {
                (None, Some(format!("The file is not valid and has to be repaired by hand: {error}")))
            }
        };
        let fields = section.fields.iter().filter_map(|described| {
            let key = keys::find(described.key)?;
            let in_file = config.as_ref().map_or(Value::Absent, |config: &Config| (key.value)(config));
            Some(Field {
                name: described.key.to_owned(),
                label: described.label,
                help: described.help,
                control: &described.control,
                restart: key.effect == Effect::Restart,
                typed: in_file.to_text(),
                error: None,
                in_file,
                kind: key.kind,
            })
        });
        let fields = if config.is_some() { fields.collect() } else { Vec::new() };
        Self { section, fields, version: current.version.clone(), error }
    }

    /// As it was sent.
    pub(super) fn of_fields(web: &Web, section: &'static Section, current: &Current, sent: &Fields) -> Self {
        let mut form = Self::of_file(web, section, current);
        for field in &mut form.fields {
            field.typed = sent.lines(&field.name).replace('\r', "");
        }
        form
    }

    /// The file's text with what differs changed; none when something cannot be read, which is noted.
    pub(super) fn edited(&mut self, text: &str) -> Option<String> {
        let mut changes = Vec::new();
        for field in &mut self.fields {
            let value = field.changed();
            changes.extend(value.map(|value| Change::Set { key: field.name.clone(), value }));
        }
        if self.error.is_some() || self.fields.iter().any(|field| field.error.is_some()) {
            return None;
        }
        match edit(text, &changes) {
            Ok(text) => Some(text),
            Err(error) => {
                self.refused(&error.into());
                None
            }
        }
    }

    /// Notes why it was not applied, at its field if it has one here.
    pub(super) fn refused(&mut self, error: &ApplyError) {
        let (key, message) = match error {
            ApplyError::Invalid(error) => (error.key.as_str(), error.message.clone()),
            ApplyError::Edit(error) => (error.key.as_str(), error.message.clone()),
            other => ("", other.to_string()),
        };
        match self.fields.iter_mut().find(|field| field.name == key) {
            Some(field) => field.error = Some(message),
            None if key.is_empty() => self.error = Some(message),
            None => self.error = Some(format!("{key}: {message}")),
        }
    }

    /// The fields in groups, in order; a form with one group alone names none.
    pub(super) fn groups(&self) -> Vec<(&'static str, &[Field])> {
        self.fields
            .chunk_by(|one, next| sections::group(&one.name) == sections::group(&next.name))
            .map(|fields| (fields.first().map_or("", |field| sections::group(&field.name)), fields))
            .collect()
    }

    /// Whether a value takes effect with the next start only.
    pub(super) fn has_restarts(&self) -> bool {
        self.fields.iter().any(|field| field.restart)
    }

    /// How many fields have something wrong.
    pub(super) fn errors(&self) -> usize {
        self.fields.iter().filter(|field| field.error.is_some()).count()
    }
}
