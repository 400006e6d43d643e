# SPDX-License-Identifier: Apache-2.0
# cmake --install DIR --prefix FOLDER: a folder that can be moved to another host.  Programs look for libraries beside
# themselves first (lib/phalanx, by $ORIGIN), where the component `libraries` puts what the host may not have; the C
# library and the driver's stay the host's.
set(programs phalanx-bench phalanx-model)
if(PHX_PARTS STREQUAL "all")
  list(APPEND programs phalanx phalanxd phalanx-rank)
endif()
if(PHX_TESTS AND PHX_PARTS STREQUAL "engine") # for tests/gpu/run
  list(APPEND programs ops_device_test model_device_test model_batch_test)
endif()
set_target_properties(${programs} PROPERTIES INSTALL_RPATH "$ORIGIN/../lib/phalanx")
install(TARGETS ${programs} RUNTIME DESTINATION bin COMPONENT programs)

set(files "")
foreach(program ${programs})
  list(APPEND files "$<TARGET_FILE:${program}>")
endforeach()
install(CODE "
  file(GET_RUNTIME_DEPENDENCIES EXECUTABLES ${files} RESOLVED_DEPENDENCIES_VAR found UNRESOLVED_DEPENDENCIES_VAR missing
    PRE_EXCLUDE_REGEXES \"^ld-linux\" \"^libc\\\\.so\" \"^libm\\\\.so\" \"^libdl\\\\.so\" \"^libpthread\\\\.so\" \"^librt\\\\.so\"
      \"^libresolv\\\\.so\" \"^libcuda\\\\.so\")
  if(missing)
    message(FATAL_ERROR \"libraries of the programs were not found: \${missing}\")
  endif()
  foreach(library \${found})
    file(INSTALL DESTINATION \"\${CMAKE_INSTALL_PREFIX}/lib/phalanx\" TYPE SHARED_LIBRARY FOLLOW_SYMLINK_CHAIN
      FILES \"\${library}\")
  endforeach()" COMPONENT libraries)
