# SPDX-License-Identifier: Apache-2.0
# External libraries, all from Debian packages (docs/DEPENDENCIES.md says why each is here).
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson)
pkg_check_modules(SODIUM REQUIRED IMPORTED_TARGET libsodium)
pkg_check_modules(OPENSSL REQUIRED IMPORTED_TARGET openssl)
pkg_check_modules(SQLITE REQUIRED IMPORTED_TARGET sqlite3)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
pkg_check_modules(EVENT REQUIRED IMPORTED_TARGET libevent libevent_pthreads libevent_openssl)
pkg_check_modules(YAML REQUIRED IMPORTED_TARGET yaml-0.1)
pkg_check_modules(PROTOBUFC REQUIRED IMPORTED_TARGET libprotobuf-c)
pkg_check_modules(CURL REQUIRED IMPORTED_TARGET libcurl)
find_program(PHX_PROTOC protoc REQUIRED)
find_program(PHX_PROTOC_C protoc-c REQUIRED)
find_package(MPI REQUIRED COMPONENTS C)
find_program(PHX_MPIRUN mpirun REQUIRED)

# gRPC C core alone: pkg-config would put about sixty libraries on the line.
find_library(PHX_GRPC_LIBRARY grpc REQUIRED)
find_library(PHX_GPR_LIBRARY gpr REQUIRED)
add_library(phx_grpc_core INTERFACE)
target_link_libraries(phx_grpc_core INTERFACE ${PHX_GRPC_LIBRARY} ${PHX_GPR_LIBRARY})
