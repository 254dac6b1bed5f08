//! Parquet: one document a row, in one column of text.

use std::{fs::File, path::Path, sync::Arc};

use parquet::{
    errors::ParquetError,
    file::reader::{FileReader, SerializedFileReader},
    record::{Field, Row, reader::RowIter},
    schema::types::Type,
};

use super::Documents;
use crate::data::error::{DataError, cannot};

/// Streams one column of a file; other columns are not read.
pub(super) fn documents<'a>(path: &Path, column: &'a str) -> Result<Documents<'a>, DataError> {
    let file = File::open(path).map_err(cannot("read", path))?;
    let bad = |line, reason: String| DataError::Document { path: path.to_path_buf(), line, reason };
    let wrong = |error: ParquetError| bad(None, format!("expected a Parquet file, got {error}"));
    let reader = SerializedFileReader::new(file).map_err(wrong)?;
    let only = projection(reader.metadata().file_metadata().schema(), column)
        .map_err(|reason| bad(None, reason))?;
    let rows = RowIter::from_file_into(Box::new(reader)).project(Some(only)).map_err(wrong)?;
    let path = path.to_path_buf();
    Ok(Box::new(rows.zip(1..).map(move |(row, number)| {
        document(row, column).map_err(|reason| {
            let reason = format!("row {number}: {reason}");
            DataError::Document { path: path.clone(), line: None, reason }
        })
    })))
}

/// The schema with nothing but the column.
fn projection(schema: &Type, column: &str) -> Result<Type, String> {
    let fields = schema.get_fields();
    let Some(field) = fields.iter().find(|field| field.name() == column) else {
        let names: Vec<_> = fields.iter().map(|field| format!("`{}`", field.name())).collect();
        return Err(format!("expected column `{column}`, got only {}", names.join(", ")));
    };
    Type::group_type_builder(schema.name())
        .with_fields(vec![Arc::clone(field)])
        .build()
        .map_err(|error| error.to_string())
}

fn document(row: Result<Row, ParquetError>, column: &str) -> Result<String, String> {
    let row = row.map_err(|error| error.to_string())?;
    let Some((_, field)) = row.into_columns().pop() else {
        return Err(format!("expected column `{column}`, got an empty row"));
    };
    match field {
        Field::Str(text) => Ok(text),
        // Writers that do not annotate their strings.
        Field::Bytes(bytes) => {
            let text = bytes.as_utf8().map_err(|error| error.to_string())?;
            Ok(text.to_string())
        }
        other => Err(format!("expected text in column `{column}`, got {other}")),
    }
}

#[cfg(test)]
mod tests {
    use parquet::{
        data_type::{ByteArray, ByteArrayType},
        file::writer::SerializedFileWriter,
        schema::parser::parse_message_type,
    };

    use super::*;

    fn write(path: &Path, kind: &str, groups: &[&[Option<&str>]]) {
        let schema = format!("message m {{ optional binary other; optional binary text {kind}; }}");
        let schema = Arc::new(parse_message_type(&schema).unwrap());
        let file = File::create(path).unwrap();
        let mut writer = SerializedFileWriter::new(file, schema, Default::default()).unwrap();
        for rows in groups {
            let mut group = writer.next_row_group().unwrap();
            while let Some(mut column) = group.next_column().unwrap() {
                let values: Vec<ByteArray> =
                    rows.iter().flatten().map(|&text| text.into()).collect();
                let levels: Vec<i16> = rows.iter().map(|row| i16::from(row.is_some())).collect();
                column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
                column.close().unwrap();
            }
            group.close().unwrap();
        }
        writer.close().unwrap();
    }

    fn read(path: &Path, column: &str) -> Result<Vec<String>, String> {
        let all = documents(path, column).and_then(|all| all.collect());
        all.map_err(|error| error.to_string())
    }

    #[test]
    fn rows_come_in_order_over_row_groups() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        for kind in ["(UTF8)", ""] {
            write(&path, kind, &[&[Some("one"), Some("two")], &[Some("drei é")]]);
            assert_eq!(read(&path, "text").unwrap(), ["one", "two", "drei é"]);
        }
    }

    #[test]
    fn missing_columns_and_empty_cells_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        write(&path, "(UTF8)", &[&[Some("one"), None]]);
        let error = read(&path, "body").unwrap_err();
        let end = "a.parquet: expected column `body`, got only `other`, `text`";
        assert!(error.ends_with(end), "{error}");
        let error = read(&path, "text").unwrap_err();
        let end = "a.parquet: row 2: expected text in column `text`, got null";
        assert!(error.ends_with(end), "{error}");
        std::fs::write(&path, "no parquet").unwrap();
        let error = read(&path, "text").unwrap_err();
        assert!(error.contains("a.parquet: expected a Parquet file"), "{error}");
    }
}
