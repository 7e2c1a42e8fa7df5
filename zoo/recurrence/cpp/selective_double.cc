// selective.cc for double precision.

#define ZOO_DOUBLE
#include "selective.cc"
