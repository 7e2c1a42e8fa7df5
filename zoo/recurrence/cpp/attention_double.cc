// attention.cc for double precision.

#define ZOO_DOUBLE
#include "attention.cc"
