/* SPDX-License-Identifier: Apache-2.0
 * JSON schema -> TypeScript, the way the reference renderer of harmony writes function signatures.
 * The model has seen exactly this form in training, odd corners included (a nested object's closing
 * brace sits at the deeper indent, embedded newlines of a description are not prefixed again). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/text/harmony.h"
#include "rpc/base/json.h"

static void put_type(struct phx_buf *out, const json_t *schema, int indent);

static void put_indent(struct phx_buf *out, int indent)
{
    for (int i = 0; i < indent; i++)
        phx_buf_putc(out, ' ');
}

static const char *text_of(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static bool is_enum(const json_t *schema)
{
    return json_array_size(json_object_get(schema, "enum")) > 0;
}

/* A number as short as it reads back: 0.1, not 0.10000000000000001. */
static void put_real(struct phx_buf *out, double value)
{
    char text[40];
    for (int digits = 1; digits <= 17; digits++) {
        (void)snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    phx_buf_puts(out, text);
    if (!strpbrk(text, ".e"))
        phx_buf_puts(out, ".0");
}

static void put_default(struct phx_buf *out, const json_t *schema)
{
    const json_t *value = json_object_get(schema, "default");
    const char   *text = json_string_value(value);
    if (text)
        phx_buf_printf(out, is_enum(schema) ? "default: %s" : "default: \"%s\"", text);
    else if (json_is_real(value)) {
        phx_buf_puts(out, "default: ");
        put_real(out, json_real_value(value));
    } else {
        phx_buf_puts(out, "default: ");
        phx_json_put(out, value);
    }
}

static void put_comment(struct phx_buf *out, int indent, const char *text)
{
    put_indent(out, indent);
    phx_buf_printf(out, "// %s\n", text);
}

/* The type, with " | null" when the schema says nullable and the type does not say so yet. */
static void put_nullable_type(struct phx_buf *out, const json_t *schema, int indent)
{
    size_t before = out->size;
    put_type(out, schema, indent);
    if (json_is_true(json_object_get(schema, "nullable")) && out->size > before &&
        !strstr(out->data + before, "null"))
        phx_buf_puts(out, " | null");
}

/* Behind a variant: its description (unless told above) and default. */
static void put_variant_notes(struct phx_buf *out, const json_t *variant, const char *description)
{
    bool has_default = json_object_get(variant, "default") != NULL;
    if (!description && !has_default)
        return;
    phx_buf_puts(out, " // ");
    if (description)
        phx_buf_puts(out, description);
    if (description && has_default)
        phx_buf_putc(out, ' ');
    if (has_default)
        put_default(out, variant);
}

static void put_union(struct phx_buf *out, const json_t *variants, int indent)
{
    const json_t *variant;
    size_t        i;
    json_array_foreach((json_t *)variants, i, variant)
    {
        phx_buf_putc(out, '\n');
        put_indent(out, indent);
        phx_buf_puts(out, " | ");
        put_nullable_type(out, variant, indent + 3);
        put_variant_notes(out, variant, text_of(variant, "description"));
    }
}

static void put_union_property(struct phx_buf *out, const char *key, const json_t *value,
                               const json_t *variants, bool is_required, int indent)
{
    const char   *description = text_of(value, "description");
    const char   *first = text_of(json_array_get(variants, 0), "description");
    bool          is_above = description && !(first && strcmp(first, description) == 0);
    const json_t *variant;
    size_t        i;
    if (is_above)
        put_comment(out, indent, description);
    if (json_object_get(value, "default")) {
        put_indent(out, indent);
        phx_buf_puts(out, "// ");
        put_default(out, value);
        phx_buf_putc(out, '\n');
    }
    put_indent(out, indent);
    phx_buf_printf(out, "%s%s:\n", key, is_required ? "" : "?");
    json_array_foreach((json_t *)variants, i, variant)
    {
        const char *note = text_of(variant, "description");
        if ((i == 0 && is_above) || (note && description && strcmp(note, description) == 0))
            note = NULL;
        put_indent(out, indent);
        phx_buf_puts(out, " | ");
        put_nullable_type(out, variant, indent + 3);
        put_variant_notes(out, variant, note);
        phx_buf_putc(out, '\n');
    }
    put_indent(out, indent);
    phx_buf_puts(out, ",\n");
}

static void put_property_notes(struct phx_buf *out, const json_t *value, int indent)
{
    const char   *title = text_of(value, "title");
    const char   *description = text_of(value, "description");
    const json_t *examples = json_object_get(value, "examples"), *example;
    size_t        i;
    if (title) {
        put_comment(out, indent, title);
        put_indent(out, indent);
        phx_buf_puts(out, "//\n");
    }
    if (description && !json_object_get(value, "oneOf"))
        put_comment(out, indent, description);
    if (json_array_size(examples) > 0)
        put_comment(out, indent, "Examples:");
    json_array_foreach((json_t *)examples, i, example) if (json_is_string(example))
    {
        put_indent(out, indent);
        phx_buf_printf(out, "// - \"%s\"\n", json_string_value(example));
    }
}

static bool is_required(const json_t *schema, const char *key)
{
    const json_t *list = json_object_get(schema, "required"), *item;
    size_t        i;
    json_array_foreach((json_t *)list, i,
                       item) if (json_is_string(item) &&
                                 strcmp(json_string_value(item), key) == 0) return true;
    return false;
}

static void put_object(struct phx_buf *out, const json_t *schema, int indent)
{
    const char *key;
    json_t     *value;
    if (text_of(schema, "description"))
        put_comment(out, indent, text_of(schema, "description"));
    phx_buf_puts(out, "{\n");
    json_object_foreach(json_object_get(schema, "properties"), key, value)
    {
        const json_t *variants = json_object_get(value, "oneOf");
        put_property_notes(out, value, indent);
        if (json_is_array(variants)) {
            put_union_property(out, key, value, variants, is_required(schema, key), indent);
            continue;
        }
        put_indent(out, indent);
        phx_buf_printf(out, "%s%s: ", key, is_required(schema, key) ? "" : "?");
        put_nullable_type(out, value, indent + 4);
        phx_buf_putc(out, ',');
        if (json_object_get(value, "default") && !variants) {
            phx_buf_puts(out, " // ");
            put_default(out, value);
        }
        phx_buf_putc(out, '\n');
    }
    put_indent(out, indent);
    phx_buf_putc(out, '}');
}

static void put_enum(struct phx_buf *out, const json_t *schema)
{
    const json_t *item;
    size_t        i, n = 0;
    json_array_foreach(json_object_get(schema, "enum"), i, item) if (json_is_string(item))
        phx_buf_printf(out, "%s\"%s\"", n++ ? " | " : "", json_string_value(item));
    if (n == 0)
        phx_buf_puts(out, "string");
}

static bool put_type_list(struct phx_buf *out, const json_t *types)
{
    const json_t *item;
    size_t        i, n = 0;
    json_array_foreach((json_t *)types, i, item)
    {
        const char *name = json_string_value(item);
        if (name)
            phx_buf_printf(out, "%s%s", n++ ? " | " : "",
                           strcmp(name, "integer") == 0 ? "number" : name);
    }
    return n > 0;
}

static void put_type(struct phx_buf *out, const json_t *schema, int indent)
{
    const json_t *variants = json_object_get(schema, "oneOf");
    const json_t *type = json_object_get(schema, "type");
    const char   *name = json_string_value(type);
    if (json_is_array(variants)) {
        put_union(out, variants, indent);
    } else if (json_is_array(type) && put_type_list(out, type)) {
        return;
    } else if (!name) {
        phx_buf_puts(out, "any");
    } else if (strcmp(name, "object") == 0) {
        put_object(out, schema, indent);
    } else if (strcmp(name, "string") == 0) {
        put_enum(out, schema);
    } else if (strcmp(name, "number") == 0 || strcmp(name, "integer") == 0) {
        phx_buf_puts(out, "number");
    } else if (strcmp(name, "boolean") == 0) {
        phx_buf_puts(out, "boolean");
    } else if (strcmp(name, "array") == 0) {
        const json_t *items = json_object_get(schema, "items");
        if (items) {
            put_type(out, items, indent);
            phx_buf_puts(out, "[]");
        } else {
            phx_buf_puts(out, "Array<any>");
        }
    } else {
        phx_buf_puts(out, "any");
    }
}

int phx_harmony_type(const char *schema, const char *where, struct phx_buf *out,
                     struct phx_err *err)
{
    json_t *root = NULL;
    int     rc = phx_json_parse(&root, schema, strlen(schema), PHX_TEXT_BYTES_MAX, 0, where, err);
    if (rc == 0 && !json_is_object(root))
        rc = phx_fail(err, PHX_E_INVALID, "%s must be a JSON schema object", where);
    if (rc == 0)
        put_type(out, root, 0);
    json_decref(root);
    return rc ? rc : phx_buf_check(out, where, err);
}
