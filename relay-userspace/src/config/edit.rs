//! Editing the file's text: single keys change, comments and order stay. Pure: text in, text out; whether the result
//! is a configuration is for [`super::Config::parse`] to say.

use thiserror::Error;
use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, TableLike, Value as TomlValue, value};

use super::keys::{NUMBERS_OR_NOTHING, Value};

/// Most networks that the pages make.
pub const MOST_NETWORKS: usize = 16;

/// A change of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A key, written `table.key`, gets a value; [`Value::Absent`] removes it.
    Set {
        /// The key.
        key: String,
        /// Its value.
        value: Value,
    },
    /// A key of a network gets a value; [`Value::Absent`] removes it.
    SetInNetwork {
        /// The network's position, from 0.
        network: usize,
        /// The key.
        key: String,
        /// Its value.
        value: Value,
    },
    /// A network is added at the end.
    AddNetwork {
        /// Its name.
        name: String,
        /// Its role.
        role: String,
        /// Its interface.
        interface: String,
    },
    /// A network is removed.
    RemoveNetwork {
        /// Its position, from 0.
        network: usize,
    },
}

/// Why a text cannot be edited.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{key}: {message}")]
pub struct EditError {
    /// The key that was to be changed.
    pub key: String,
    /// What is in the way, and what to do.
    pub message: String,
}

/// Makes changes, in order.
///
/// # Errors
/// The text is no TOML, a number is too large for it, or it is written in a way that cannot be edited.
pub fn edit(text: &str, changes: &[Change]) -> Result<String, EditError> {
    let mut document: DocumentMut = text
        .parse()
        .map_err(|error: toml_edit::TomlError| wrong("", &format!("the file is no TOML: {error}")))?;
    for change in changes {
        match change {
            Change::Set { key, value } => {
                let (table, name) =
                    key.rsplit_once('.').ok_or_else(|| wrong(key, "it is not a key of a table"))?;
                let mut place: &mut dyn TableLike = document.as_table_mut();
                for part in table.split('.') {
                    let item = place.entry(part).or_insert_with(|| Item::Table(Table::new()));
                    place = item
                        .as_table_like_mut()
                        .ok_or_else(|| wrong(key, "its table is not written as one"))?;
                }
                set(place, key, name, value)?;
            }
            Change::SetInNetwork { network, key, value } => {
                let full = format!("network.{key}");
                let table =
                    networks(&mut document)?.get_mut(*network).ok_or_else(|| gone(&full, *network))?;
                set(table, &full, key, value)?;
            }
            Change::AddNetwork { name, role, interface } => {
                document
                    .as_table_mut()
                    .entry("network")
                    .or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
                let networks = networks(&mut document)?;
                if networks.len() >= MOST_NETWORKS {
                    return Err(wrong("network", &format!("there may be {MOST_NETWORKS} at most")));
                }
                let mut table = Table::new();
                for (key, text) in [("name", name), ("role", role), ("interface", interface)] {
                    table.insert(key, value(text));
                }
                table.decor_mut().set_prefix("\n");
                networks.push(table);
            }
            Change::RemoveNetwork { network } => {
                let networks = networks(&mut document)?;
                if *network >= networks.len() {
                    return Err(gone("network", *network));
                }
                networks.remove(*network);
            }
        }
    }
    Ok(document.to_string())
}

/// The position of the network that a line of the text belongs to, both from where people count: lines from 1,
/// networks from 0.
#[must_use]
pub fn network_at(text: &str, line: usize) -> Option<usize> {
    let headers = text.lines().take(line).filter(|line| line.trim_start().starts_with("[[network]]")).count();
    headers.checked_sub(1)
}

fn networks(document: &mut DocumentMut) -> Result<&mut ArrayOfTables, EditError> {
    document
        .get_mut("network")
        .and_then(Item::as_array_of_tables_mut)
        .ok_or_else(|| wrong("network", "the networks are not written as [[network]]; edit the file by hand"))
}

fn set(table: &mut dyn TableLike, key: &str, name: &str, new: &Value) -> Result<(), EditError> {
    let mut new: TomlValue = match new {
        Value::Absent => {
            table.remove(name);
            return Ok(());
        }
        Value::Text(text) if NUMBERS_OR_NOTHING.contains(&name) => {
            text.parse::<i64>().map_err(|_| wrong(key, &format!("{text:?} is not a whole number")))?.into()
        }
        Value::Text(text) => text.into(),
        Value::Number(number) => {
            i64::try_from(*number).map_err(|_| wrong(key, &format!("{number} is too large")))?.into()
        }
        Value::Flag(flag) => (*flag).into(),
        Value::List(items) => items.iter().collect::<Array>().into(),
    };
    match table.get_mut(name).and_then(Item::as_value_mut) {
        Some(old) => {
            // What stands around the old value, such as a comment behind it, stays.
            *new.decor_mut() = old.decor().clone();
            *old = new;
        }
        None => {
            table.insert(name, Item::Value(new));
        }
    }
    Ok(())
}

fn gone(key: &str, network: usize) -> EditError {
    wrong(key, &format!("there is no network number {} any more; load the page again", network + 1))
}

fn wrong(key: &str, message: &str) -> EditError {
    EditError { key: key.to_owned(), message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# The office in Graz.
[[network]]
name = "office" # phones
role = "phones"
interface = "eth0"

# To the centre.
[[network]]
name = "centre"
role = "servers"
interface = "eth1"

[upstream]
servers = ["10.62.0.10:5060"] # one for now

# Slow line.
[sip]
timer_t1_ms = 600
"#;

    fn set(key: &str, value: Value) -> Change {
        Change::Set { key: key.to_owned(), value }
    }

    #[test]
    fn one_key_changes_and_every_other_byte_stays() {
        let list = ["10.62.0.10:5060", "10.62.0.11:5060"].map(str::to_owned).to_vec();
        let rows = [
            (
                "a number",
                set("sip.timer_t1_ms", Value::Number(700)),
                TEXT.replace("timer_t1_ms = 600", "timer_t1_ms = 700"),
            ),
            (
                "a list with a comment behind it",
                set("upstream.servers", Value::List(list)),
                TEXT.replace("[\"10.62.0.10:5060\"]", "[\"10.62.0.10:5060\", \"10.62.0.11:5060\"]"),
            ),
            (
                "a key more",
                set("sip.max_calls", Value::Number(20)),
                TEXT.replace("timer_t1_ms = 600\n", "timer_t1_ms = 600\nmax_calls = 20\n"),
            ),
            (
                "a table more",
                set("datapath.kernel_log", Value::Flag(true)),
                format!("{TEXT}\n[datapath]\nkernel_log = true\n"),
            ),
            ("a key less", set("sip.timer_t1_ms", Value::Absent), TEXT.replace("timer_t1_ms = 600\n", "")),
            (
                "text with quotes and line ends cannot leave its string",
                set("log.level", Value::Text("a\"\n[x]".to_owned())),
                format!("{TEXT}\n[log]\nlevel = \"\"\"\na\"\n[x]\"\"\"\n"),
            ),
            (
                "a network's key",
                Change::SetInNetwork {
                    network: 0,
                    key: "name".to_owned(),
                    value: Value::Text("graz".to_owned()),
                },
                TEXT.replace("\"office\" # phones", "\"graz\" # phones"),
            ),
            (
                "a network's port that may be absent",
                Change::SetInNetwork {
                    network: 1,
                    key: "sip_tcp_port".to_owned(),
                    value: Value::Text("0".to_owned()),
                },
                TEXT.replace("interface = \"eth1\"\n", "interface = \"eth1\"\nsip_tcp_port = 0\n"),
            ),
            (
                "a network less",
                Change::RemoveNetwork { network: 1 },
                TEXT.replace(
                    "\n# To the centre.\n[[network]]\nname = \"centre\"\nrole = \"servers\"\ninterface = \"eth1\"\n",
                    "",
                ),
            ),
        ];
        for (description, change, expected) in rows {
            assert_eq!(edit(TEXT, &[change]).unwrap(), expected, "{description}");
        }
    }

    #[test]
    fn a_network_is_added_behind_the_others() {
        let added = Change::AddNetwork {
            name: "gateway".to_owned(),
            role: "gateway".to_owned(),
            interface: "eth2".to_owned(),
        };
        let text = edit(TEXT, &[added]).unwrap();
        let expected = TEXT.replace(
            "interface = \"eth1\"\n",
            "interface = \"eth1\"\n\n[[network]]\nname = \"gateway\"\nrole = \"gateway\"\ninterface = \"eth2\"\n",
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn a_file_without_networks_gets_its_first_ones_and_keeps_its_comments() {
        let network = |name: &str, role: &str, interface: &str| Change::AddNetwork {
            name: name.to_owned(),
            role: role.to_owned(),
            interface: interface.to_owned(),
        };
        let servers = Value::List(vec!["10.62.0.10:5060".to_owned()]);
        let changes = [
            network("office", "phones", "eth1"),
            network("wan", "servers", "eth0"),
            set("upstream.servers", servers),
        ];
        let text = edit("# Yours.\n[log]\nlevel = \"info\"\n", &changes).unwrap();
        let expected = "# Yours.\n[log]\nlevel = \"info\"\n\n\
             [[network]]\nname = \"office\"\nrole = \"phones\"\ninterface = \"eth1\"\n\n\
             [[network]]\nname = \"wan\"\nrole = \"servers\"\ninterface = \"eth0\"\n\n\
             [upstream]\nservers = [\"10.62.0.10:5060\"]\n";
        assert_eq!(text, expected);
        crate::config::Config::parse(std::path::Path::new("branchline.toml"), &text).unwrap();
        let only_comments = edit("# Yours.\n", &changes).unwrap();
        crate::config::Config::parse(std::path::Path::new("branchline.toml"), &only_comments).unwrap();
        assert!(only_comments.contains("# Yours.\n"), "{only_comments}");
    }

    #[test]
    fn what_cannot_be_edited_is_told_by_key() {
        let inline = "network = [{ name = \"office\" }]\n";
        let rows = [
            ("no TOML", "= 3", set("sip.max_calls", Value::Number(1)), ": the file is no TOML"),
            (
                "too large",
                TEXT,
                set("sip.max_calls", Value::Number(u64::MAX)),
                "sip.max_calls: 18446744073709551615 is too large",
            ),
            (
                "no such network",
                TEXT,
                Change::RemoveNetwork { network: 7 },
                "network: there is no network number 8",
            ),
            (
                "inline networks",
                inline,
                Change::RemoveNetwork { network: 0 },
                "network: the networks are not written as [[network]]",
            ),
            (
                "no table",
                "sip = 3\n",
                set("sip.max_calls", Value::Number(1)),
                "sip.max_calls: its table is not written as one",
            ),
        ];
        for (description, text, change, expected) in rows {
            let error = edit(text, &[change]).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{description}: {error}");
        }
    }

    #[test]
    fn a_line_is_told_its_network() {
        for (line, expected) in [(1, None), (2, Some(0)), (5, Some(0)), (8, Some(1)), (13, Some(1))] {
            assert_eq!(network_at(TEXT, line), expected, "line {line}");
        }
    }
}
