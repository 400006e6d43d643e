# SPDX-License-Identifier: Apache-2.0
# Compiler flags of all own code: phx_flags is linked by every target.
add_library(phx_flags INTERFACE)
target_include_directories(phx_flags INTERFACE ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR})
target_compile_definitions(phx_flags INTERFACE _GNU_SOURCE PHX_VERSION="${PROJECT_VERSION}")
# Explicit fused multiply-adds are part of the fixed arithmetic: the compiler must not add or drop any.
target_compile_options(phx_flags INTERFACE
  $<$<COMPILE_LANGUAGE:C,CXX>:-ffp-contract=off;-fno-math-errno;-fstack-protector-strong>)
target_link_options(phx_flags INTERFACE -Wl,-z,relro,-z,now)

# Own code is compiled with all warnings; generated code links phx_flags alone.
add_library(phx_warnings INTERFACE)
set(phx_warning_list -Wall -Wextra -Wpedantic -Wshadow -Wvla -Wno-missing-field-initializers -Wno-format-truncation)
if(PHX_WERROR)
  list(APPEND phx_warning_list -Werror)
endif()
target_compile_options(phx_warnings INTERFACE
  $<$<COMPILE_LANGUAGE:C>:${phx_warning_list};-Wstrict-prototypes;-Wmissing-prototypes>
  $<$<COMPILE_LANGUAGE:CXX>:${phx_warning_list}>)

if(PHX_SANITIZE)
  list(JOIN PHX_SANITIZE "," phx_sanitize_list)
  target_compile_options(phx_flags INTERFACE -fsanitize=${phx_sanitize_list}
    -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(phx_flags INTERFACE -fsanitize=${phx_sanitize_list})
elseif(CMAKE_BUILD_TYPE MATCHES "Release|RelWithDebInfo")
  target_compile_definitions(phx_flags INTERFACE _FORTIFY_SOURCE=2)
endif()
