//! Descriptions of what a file may say: schema, reference and messages are made from them.

use crate::text::json::Json;

/// What a file may say in one place.
#[derive(Debug, Clone)]
pub(crate) enum Shape {
    /// A string.
    Text {
        /// What it is called, with its article: "a duration".
        noun: &'static str,
        /// A regular expression (ECMA-262) that every valid value matches, and some invalid ones may.
        pattern: Option<&'static str>,
        /// Valid values.
        examples: &'static [&'static str],
    },
    /// A whole number.
    Integer { min: u64, max: u64 },
    /// `true` or `false`.
    Boolean,
    /// One of these strings.
    Choice(Vec<&'static str>),
    /// A list.
    List(Box<Self>),
    /// Any of these.
    AnyOf(Vec<Self>),
    /// A table whose keys are names that the file chooses.
    Named {
        /// The word that stands for a key: `NAME`.
        key: &'static str,
        value: Box<Self>,
    },
    /// A table with known keys.
    Table(fn() -> TableInfo),
}

/// A table with known keys.
#[derive(Debug, Clone)]
pub(crate) struct TableInfo {
    /// Its name in the schema and in the reference.
    pub(crate) name: &'static str,
    /// Its header in a file: `[upstream.NAME]`.
    pub(crate) header: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) fields: Vec<FieldInfo>,
    /// What other proxies call its keys.
    pub(crate) foreign: Vec<ForeignName>,
}

/// Names that other proxies use, and what to write in their place.
pub(crate) type ForeignName = (&'static [&'static str], &'static str);

/// A key of a table.
#[derive(Debug, Clone)]
pub(crate) struct FieldInfo {
    pub(crate) key: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) shape: Shape,
    pub(crate) required: bool,
    pub(crate) default: Option<DefaultInfo>,
    /// The header of the table whose section of the reference describes the key; `None` for the table's own.
    pub(crate) home: Option<&'static str>,
}

/// The default of a key.
#[derive(Debug, Clone)]
pub(crate) struct DefaultInfo {
    pub(crate) value: Json,
    pub(crate) source: &'static str,
}

impl TableInfo {
    /// What to write in this table for what other proxies call `name`.
    pub(crate) fn written_here(&self, name: &str) -> Option<&'static str> {
        let mut foreign = self.foreign.iter();
        let known = foreign.find(|(theirs, _)| theirs.contains(&name));
        known.map(|(_, ours)| *ours)
    }

    /// All keys, those that other tables share behind the header of the table that describes them.
    pub(crate) fn list_keys(&self) -> String {
        let (own, shared): (Vec<&FieldInfo>, Vec<&FieldInfo>) = self
            .fields
            .iter()
            .partition(|field| field.home_outside(self).is_none());
        let join = |fields: &[&FieldInfo]| {
            let keys: Vec<_> = fields.iter().map(|field| field.key).collect();
            keys.join(", ")
        };
        match self.shared_home() {
            Some(home) => format!("{}, and those of {home}: {}", join(&own), join(&shared)),
            None => join(&own),
        }
    }

    /// The header of the table that describes the keys which this table shares with others, if there are any.
    pub(crate) fn shared_home(&self) -> Option<&'static str> {
        self.fields
            .iter()
            .find_map(|field| field.home_outside(self))
    }
}

impl FieldInfo {
    /// The header of the table whose section of the reference describes the key, if that is not `table`.
    pub(crate) fn home_outside(&self, table: &TableInfo) -> Option<&'static str> {
        self.home.filter(|home| *home != table.header)
    }

    /// Whether there is none of it without the key.
    pub(crate) fn is_optional(&self) -> bool {
        !self.required && self.default.is_none() && !matches!(self.shape, Shape::Table(_))
    }
}

impl Shape {
    /// Whether `word` is a valid value.
    pub(crate) fn takes(&self, word: &str) -> bool {
        match self {
            Self::Choice(words) => words.contains(&word),
            Self::AnyOf(shapes) => shapes.iter().any(|shape| shape.takes(word)),
            _ => false,
        }
    }

    /// Whether `text` is one of the examples.
    pub(crate) fn has_example(&self, text: &str) -> bool {
        matches!(self, Self::Text { examples, .. } if examples.contains(&text))
    }

    /// The first example of a valid string.
    pub(crate) fn first_example(&self) -> Option<&'static str> {
        match self {
            Self::Text { examples, .. } => examples.first().copied(),
            Self::AnyOf(shapes) => shapes.iter().find_map(Self::first_example),
            _ => None,
        }
    }

    /// Whether only whole numbers are valid.
    pub(crate) fn is_integer(&self) -> bool {
        matches!(self, Self::Integer { .. })
    }

    /// Whether `false` is a valid value.
    pub(crate) fn takes_booleans(&self) -> bool {
        match self {
            Self::Boolean => true,
            Self::AnyOf(shapes) => shapes.iter().any(Self::takes_booleans),
            _ => false,
        }
    }

    /// What is expected, in words for the middle of a sentence.
    pub(crate) fn in_words(&self) -> String {
        match self {
            Self::Text { noun, examples, .. } => match examples.first() {
                Some(example) => format!("{noun} such as \"{example}\""),
                None => (*noun).to_owned(),
            },
            Self::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Self::Boolean => "true or false".to_owned(),
            Self::Choice(words) => {
                let words: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
                words.join(" or ")
            }
            Self::List(each) => format!("a list, each {}", each.in_words()),
            Self::AnyOf(shapes) => {
                let words: Vec<_> = shapes.iter().map(Self::in_words).collect();
                words.join(", or ")
            }
            Self::Named { key, value } => format!("a table, each {key} {}", value.in_words()),
            Self::Table(info) => {
                let info = info();
                let keys = info.fields.iter().map(|field| field.key);
                format!("a table {{ {} }}", keys.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// `root` and every table that can stand in it, outermost first, each once.
pub(crate) fn list_tables(root: TableInfo) -> Vec<TableInfo> {
    let mut tables = Vec::new();
    add_table(root, &mut tables);
    tables
}

/// The headers of the tables in `root` that know `key`.
pub(crate) fn list_tables_with_key(root: TableInfo, key: &str) -> Vec<&'static str> {
    list_tables(root)
        .into_iter()
        .filter(|table| table.fields.iter().any(|field| field.key == key))
        .map(|table| match table.header {
            "The top level" => "the top level",
            header => header,
        })
        .collect()
}

fn add_table(table: TableInfo, tables: &mut Vec<TableInfo>) {
    if tables.iter().any(|known| known.name == table.name) {
        return;
    }
    tables.push(table.clone());
    for field in &table.fields {
        add_tables_of(&field.shape, tables);
    }
}

fn add_tables_of(shape: &Shape, tables: &mut Vec<TableInfo>) {
    match shape {
        Shape::Table(info) => add_table(info(), tables),
        Shape::List(each) | Shape::Named { value: each, .. } => add_tables_of(each, tables),
        // LongForm forms stand last, and what only a short form holds is of less interest.
        Shape::AnyOf(shapes) => shapes
            .iter()
            .rev()
            .for_each(|each| add_tables_of(each, tables)),
        Shape::Text { .. } | Shape::Integer { .. } | Shape::Boolean | Shape::Choice(_) => {}
    }
}
