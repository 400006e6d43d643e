# SPDX-License-Identifier: Apache-2.0
# Writes the file INPUT as a C array (phx_descriptor_set) into OUTPUT.
file(READ ${INPUT} bytes HEX)
string(LENGTH "${bytes}" digits)
math(EXPR size "${digits} / 2")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
string(REGEX REPLACE "(0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,)" "\\1\n"
  bytes "${bytes}")
file(WRITE ${OUTPUT} "#include <stddef.h>\nextern const unsigned char phx_descriptor_set[];\n"
  "extern const size_t phx_descriptor_set_size;\n"
  "const unsigned char phx_descriptor_set[] = {\n${bytes}};\n"
  "const size_t phx_descriptor_set_size = ${size};\n")
