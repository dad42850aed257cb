// Which stages make up one layer, which rows of which tensors are read, and where stored tensors lie in an arena.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "grace/model/spec.hpp"
#include "grace/plan/layout_types.hpp"

namespace grace::plan {

// Name of the tensor a stage makes; empty for the readout.
const std::string& output_of(const Stage& stage);

class LayerLayout {
 public:
  // channel_unit: numbers that channels are padded to. Throws Error for stage lists that the evaluator cannot run.
  LayerLayout(const ModelSpec& spec, int layer, int channel_unit);

  std::vector<const Stage*> stages;                                      // of this layer, in order of evaluation
  std::vector<Slot> slots;                                               // stored tensors
  std::vector<std::string> names;                                        // [slot]
  std::vector<std::vector<int>> rows;                                    // [slot] model row of every stored row
  std::vector<int> accumulated;                                          // slots that start at zero
  std::string density;                                                   // the reduction that feeds the readout
  std::map<std::string, std::set<int>> needed;                           // rows read by somebody
  std::map<std::string, std::map<int, int>> stored;                      // model row -> stored row
  std::map<std::string, std::vector<const ChannelMix*>> left_mixes;      // by left operand
  std::map<std::string, std::vector<const FunctionReduce*>> reductions;  // by input

  int slot(const std::string& name) const { return slot_of_.at(name); }

  // Products are streamed: made block by block, handed to mixes and reductions, and dropped.
  bool is_streamed(const std::string& name) const {
    return std::holds_alternative<CouplingProduct>(*producer_.at(name));
  }

 private:
  void assign_stages(const ModelSpec& spec, int layer);
  void find_consumers(const ModelSpec& spec);
  void find_needed_rows();
  void make_slots(int channel_unit);
  void need_all(const std::string& name, int n_rows);

  std::map<std::string, const Stage*> producer_;
  std::map<std::string, int> slot_of_;
};

// Both operands of A1 and B1 may be one tensor and their path maps may agree: the two weight matrices then become one.
bool operands_merge(const ChannelMix& mix);

}  // namespace grace::plan
